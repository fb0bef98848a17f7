"""Several objectives at once: which values beat which, and when further seeds are not worth their time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.tune.settings import Direction, Pruning

Values = tuple[float, ...]


def losses(values: Sequence[float], directions: Sequence[Direction]) -> Values:
    """Return values so that less is better in every one."""
    return tuple(
        -value if direction == "maximize" else value
        for value, direction in zip(values, directions, strict=True)
    )


def dominates(one: Values, other: Values) -> bool:
    """Whether losses are nowhere larger and somewhere smaller."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def best(found: Mapping[int, Values]) -> list[int]:
    """Return the keys of the losses that no others dominate, in their order."""
    return [key for key, own in found.items() if not any(dominates(other, own) for other in found.values())]


def hopeless(own: Values, others: Sequence[Values], rule: Pruning) -> bool:
    """Whether an Optuna trial ends before its last seed.

    Optuna prunes studies of a single objective only. Ours: an Optuna trial's losses over the seeds so far,
    each improved by `rule.margin` times that loss's extent over the others, are its optimistic bound; it is
    hopeless if another, on the same seeds, is at least as good in all objectives.

    Args:
        own: Its losses over the seeds so far.
        others: Losses of complete, feasible Optuna trials over the same seeds.
        rule: The margin, and how many others there must be.
    """
    if len(others) < rule.startup:
        return False
    extents = [_extent([other[i] for other in others]) for i in range(len(own))]
    bound = tuple(loss - rule.margin * extent for loss, extent in zip(own, extents, strict=True))
    return any(all(a <= b for a, b in zip(other, bound, strict=True)) for other in others)


def _extent(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return max(finite) - min(finite) if finite else 0.0
