"""Patterns over cells: `exclude` of a matrix, `--only` and `--skip` of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from harness.config.axes import CELL_KEYS, OBSERVATION
from harness.config.problems import unknown_key
from harness.config.product import Product
from harness.config.sections import SECTIONS, Cell, Pools, views

SEED = "seed"
ALIASES = {
    "noise_budget": ("defense", "noise_budget"),
    "dataset": ("data",),
    "round": ("observe", "round"),
    OBSERVATION: ("recorded",),
}
RULE_KEYS = (*CELL_KEYS, SEED, "dataset", "round")
"""What a pattern may name."""
ABSENT = object()


@dataclass(frozen=True)
class Pattern:
    """One key of a rule.

    Attributes:
        key: As written: a section, a dotted path into one, `noise_budget`, `seed`, `dataset` or `round`.
        value: What it must equal: strings may glob, a mapping must be matched by all its keys.
    """

    key: str
    value: Any

    @property
    def path(self) -> tuple[str, ...]:
        """The section, then keys inside it."""
        head, *path = self.key.split(".")
        return (*ALIASES.get(head, (head,)), *path)

    def accepts(self, view: Any) -> bool:
        """Whether a section, as its view, has what the pattern asks for."""
        value = value_in(view, self.path[1:])
        return value is not ABSENT and _matches(self.value, value)


@dataclass(frozen=True)
class Rule:
    """Matches a cell that matches all of its patterns."""

    patterns: tuple[Pattern, ...]


@dataclass(frozen=True)
class Rules:
    """Rules over the cells of some pools, looked up rather than evaluated per cell.

    Attributes:
        rules: At most a few hundred; rule i is bit i of every mask.
        pools: What the cells index into.
        seeds: The matrix's seeds.
    """

    rules: tuple[Rule, ...]
    pools: Pools
    seeds: tuple[int, ...]

    @cached_property
    def _tables(self) -> dict[str, list[int]]:
        """For each section that a rule mentions, the rules that each of its variants does not break."""
        tables: dict[str, list[int]] = {}
        for section in sorted({p.path[0] for rule in self.rules for p in rule.patterns}):
            seen = list(self.seeds) if section == SEED else views(self.pools.of(section))
            tables[section] = [_mask(self.rules, section, view) for view in seen]
        return tables

    @cached_property
    def _cell_tables(self) -> list[tuple[int, list[int]]]:
        return [(SECTIONS.index(name), table) for name, table in self._tables.items() if name != SEED]

    def of_cell(self, cell: Cell) -> int:
        """Return the rules that `cell` matches under some seed, as a mask."""
        mask = (1 << len(self.rules)) - 1
        for place, table in self._cell_tables:
            mask &= table[cell[place]]
        return mask

    def of_seed(self, index: int) -> int:
        """Return the rules that the seed at `index` does not break, as a mask."""
        return self._tables[SEED][index] if SEED in self._tables else (1 << len(self.rules)) - 1

    def unmatched(self, product: Product) -> list[int]:
        """Return which rules match no cell of `product` under any seed."""
        possible = 0
        for index in range(len(self.seeds)):
            possible |= self.of_seed(index)
        for block in product.blocks:
            some = 0
            for row in block.rows:
                mask = (1 << len(self.rules)) - 1
                for section, variant in zip(block.sections, row, strict=True):
                    if section in self._tables:
                        mask &= self._tables[section][variant]
                some |= mask
            possible &= some
        return [index for index in range(len(self.rules)) if not possible >> index & 1]


def unknown_path(pattern: Pattern, pools: Pools) -> str | None:
    """Return what is wrong with a pattern whose section has nothing at its path, or None."""
    section, *path = pattern.path
    if not path or section == SEED:
        return None
    seen = views(pools.of(section))
    if any(value_in(view, path) is not ABSENT for view in seen):
        return None
    parents = [value_in(view, path[:-1]) for view in seen]
    known = {key for parent in parents if isinstance(parent, Mapping) for key in parent}
    return unknown_key(path[-1], known)


def value_in(view: Any, path: Sequence[str]) -> Any:
    """Return what stands at `path` in a view, or `ABSENT`."""
    for part in path:
        if not isinstance(view, Mapping) or part not in view:
            return ABSENT
        view = view[part]
    return view


def _mask(rules: Iterable[Rule], section: str, view: Any) -> int:
    mask = 0
    for index, rule in enumerate(rules):
        if all(pattern.accepts(view) for pattern in rule.patterns if pattern.path[0] == section):
            mask |= 1 << index
    return mask


def _matches(pattern: Any, value: Any) -> bool:
    if isinstance(pattern, Mapping):
        return isinstance(value, Mapping) and all(
            key in value and _matches(part, value[key]) for key, part in pattern.items()
        )
    if isinstance(value, Mapping) and isinstance(pattern, str):
        value = value.get("name")
    if isinstance(pattern, str) and isinstance(value, str):
        return fnmatchcase(value, pattern)
    if isinstance(pattern, bool) or isinstance(value, bool):
        return pattern is value
    return bool(pattern == value)
