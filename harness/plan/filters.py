"""`--only`, `--skip` and `--seeds`: which trials of a matrix a command is about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fl.errors import UsageError
from harness.config.matrix import Matrix
from harness.config.problems import unknown_key
from harness.config.rules import RULE_KEYS, Pattern, Rule, Rules, unknown_path
from harness.config.sections import Cell
from harness.config.yaml_loader import parse_scalar


class Filter:
    """Chooses trials of one matrix.

    Expressions are `key=value` or several of them with commas, all of which must match; keys are sections,
    dotted paths into them, `noise_budget` and `seed`, and values may glob: `attack=ig*`,
    `defense=none,federation.batch_size=8`. Of several `only` with the same keys one must match, and one for
    each set of keys; any `skip` that matches leaves a trial out.
    """

    def __init__(
        self, matrix: Matrix, only: Sequence[str], skip: Sequence[str], seeds: Sequence[int]
    ) -> None:
        """Read the expressions.

        Raises:
            UsageError: If one is malformed, or names a key or seed that the matrix does not have.
        """
        unknown = [seed for seed in seeds if seed not in matrix.seeds]
        if unknown:
            known = ", ".join(map(str, matrix.seeds))
            raise UsageError(f"expected --seeds among those of the matrix ({known}), got {unknown[0]}")
        self._expressions = [*(f"--only {text}" for text in only), *(f"--skip {text}" for text in skip)]
        rules = [_rule(text, matrix) for text in (*only, *skip)]
        self._rules = Rules(tuple(rules), matrix.pools, matrix.seeds)
        groups: dict[tuple[str, ...], int] = defaultdict(int)
        for index, rule in enumerate(rules[: len(only)]):
            groups[tuple(sorted(pattern.key for pattern in rule.patterns))] |= 1 << index
        self._only = tuple(groups.values())
        self._skip = ((1 << len(skip)) - 1) << len(only)
        self._seeds = {seed: index for index, seed in enumerate(matrix.seeds) if not seeds or seed in seeds}
        self._matched = 0

    def keeps(self, cell: Cell, seed: int) -> bool:
        """Whether the trial of `cell` with `seed` is chosen."""
        if seed not in self._seeds:
            return False
        mask = self._rules.of_cell(cell) & self._rules.of_seed(self._seeds[seed])
        self._matched |= mask
        return not mask & self._skip and all(mask & group for group in self._only)

    def check_all_matched(self) -> None:
        """Check, once every trial has been asked about, that every expression matched one.

        Raises:
            UsageError: If one did not.
        """
        for index, expression in enumerate(self._expressions):
            if not self._matched >> index & 1:
                raise UsageError(f"expected {expression!r} to match a trial, matches none of this matrix")


def _rule(text: str, matrix: Matrix) -> Rule:
    patterns = []
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or not value:
            raise UsageError(f"expected key=value, such as attack=dlg, got {text!r}")
        pattern = Pattern(key, parse_scalar(value))
        known = key.split(".")[0] in RULE_KEYS
        message = unknown_path(pattern, matrix.pools) if known else unknown_key(key, RULE_KEYS)
        if message is not None:
            raise UsageError(f"{text!r}: {message}")
        patterns.append(pattern)
    return Rule(tuple(patterns))
