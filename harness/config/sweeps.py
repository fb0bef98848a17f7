"""Sweeps inside a value: `{grid: [...]}`, `{linspace: ...}`, `{geomspace: ...}`, `{range: [...]}`.

A sweep stands for several values of the place where it stands; a bare list there is one value, a list.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeGuard

from harness.config.problems import Problems, shown
from harness.config.yaml_loader import Node

SWEEPS = ("grid", "linspace", "geomspace", "range")
MAX_VALUES = 100_000


def is_sweep(node: Node) -> bool:
    """Whether `node` is a sweep: a mapping whose only key is one of `SWEEPS`."""
    return len(node.entries) == 1 and next(iter(node.entries)) in SWEEPS


def alternatives(node: Node, problems: Problems) -> list[Node]:
    """Return `node` once for every combination of the sweeps inside it, the last one varying fastest."""
    if is_sweep(node):
        return [choice for value in sweep_values(node, problems) for choice in alternatives(value, problems)]
    if isinstance(node.value, dict):
        choices = [alternatives(child, problems) for child in node.value.values()]
        if all(choice == [child] for choice, child in zip(choices, node.value.values(), strict=True)):
            return [node]
        combinations = itertools.product(*choices)
        return [
            Node(dict(zip(node.value, combo, strict=True)), node.mark, node.keys) for combo in combinations
        ]
    if isinstance(node.value, tuple):
        choices = [alternatives(item, problems) for item in node.value]
        return [Node(combo, node.mark) for combo in itertools.product(*choices)]
    return [node]


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether `value` is a number (true and false are not)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def sweep_values(node: Node, problems: Problems) -> list[Node]:
    """Return the values that the sweep `node` stands for, in order; [] with a problem if it is malformed."""
    ((word, body),) = node.entries.items()
    before = len(problems)
    if word == "grid":
        values = list(body.items)
        if not isinstance(body.value, tuple):
            problems.add(body.mark, f"expected a list of values under grid, got {shown(body.plain())}")
            return []
    else:
        numbers = {"range": range_values, "linspace": _linspace, "geomspace": _geomspace}[word](
            body, problems
        )
        values = [Node(number, body.mark) for number in numbers]
    if not values and len(problems) == before:
        problems.add(body.mark, f"expected at least one value, got an empty {word}")
    return values


def range_values(body: Node, problems: Problems) -> list[int]:
    """Return the whole numbers of `[start, stop]` or `[start, stop, step]`, the stop left out."""
    bounds = [item.value for item in body.items]
    whole = all(is_number(bound) and isinstance(bound, int) for bound in bounds)
    if len(bounds) not in (2, 3) or not whole or bounds[2:] == [0]:
        problems.add(
            body.mark,
            "expected whole numbers [start, stop] or [start, stop, step] under range (the stop is left out; "
            f"linspace takes fractions), got {body.plain()}",
        )
        return []
    start, stop, *step = [int(str(bound)) for bound in bounds]
    values = range(start, stop, *step)
    if len(values) > MAX_VALUES:
        problems.add(body.mark, f"expected at most {MAX_VALUES} values, got {len(values)}")
        return []
    return list(values)


def _linspace(body: Node, problems: Problems) -> Sequence[int | float]:
    return _spaced(body, problems, lambda start, stop, share: start + (stop - start) * share)


def _geomspace(body: Node, problems: Problems) -> Sequence[int | float]:
    ends = [body.entries[name].value for name in ("start", "stop") if name in body.entries]
    if any(is_number(end) and end <= 0 for end in ends):
        problems.add(body.mark, f"expected start and stop > 0 under geomspace, got {ends[0]} and {ends[-1]}")
        return []
    return _spaced(body, problems, lambda start, stop, share: start * (stop / start) ** share)


def _spaced(
    body: Node, problems: Problems, at: Callable[[float, float, float], float]
) -> Sequence[int | float]:
    """Return `num` values from start to stop, both included, rounded to 12 digits so that ids read well.

    They are whole where both ends and all values are.
    """
    plain = {name: child.value for name, child in body.entries.items()}
    start, stop, num = (plain.get(name) for name in ("start", "stop", "num"))
    if len(plain) != 3 or not (
        is_number(start) and is_number(stop) and is_number(num) and isinstance(num, int)
    ):
        problems.add(body.mark, f"expected {{start: number, stop: number, num: integer}}, got {body.plain()}")
        return []
    if not 2 <= num <= MAX_VALUES or not (math.isfinite(start) and math.isfinite(stop)):
        problems.add(body.mark, f"expected num from 2 to {MAX_VALUES} and finite ends, got {body.plain()}")
        return []
    values = [float(f"{at(start, stop, i / (num - 1)):.12g}") for i in range(num)]
    values[0], values[-1] = float(start), float(stop)
    whole = isinstance(start, int) and isinstance(stop, int) and all(value.is_integer() for value in values)
    return [int(value) for value in values] if whole else values
