"""The trade-off between leakage and utility: which points are worth having, and how good a set of them is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """A defense at a noise budget.

    Attributes:
        name: For people.
        leakage: Less is better; at most `reference_leakage` of `hypervolume`.
        utility: More is better; at least 0.
    """

    name: str
    leakage: float
    utility: float


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both leakage and utility, by rising leakage.

    Of points that are equal in both, the first is kept.
    """
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.leakage, -p.utility)):
        if not kept or point.utility > kept[-1].utility:
            kept.append(point)
    return kept


def hypervolume(points: Sequence[Point], *, reference_leakage: float = 1.0) -> float:
    """Return the area that the points dominate, up to `reference_leakage` and down to utility 0.

    Source: Zitzler and Thiele 1999, IEEE Transactions on Evolutionary Computation 3(4), in two dimensions.
    """
    edge = front([point for point in points if point.leakage < reference_leakage and point.utility > 0])
    ends = [*(point.leakage for point in edge), reference_leakage][1:]
    return sum((end - point.leakage) * point.utility for point, end in zip(edge, ends, strict=True))


def knee(points: Sequence[Point]) -> Point | None:
    """Return the point of the front farthest from the straight line between its ends, or None.

    Both axes are scaled to the front's extent. A front of fewer than three points has none, nor has one
    without a point above the line: there, every bit of privacy costs at least its share.
    """
    edge = front(points)
    if len(edge) < 3:
        return None
    first, last = edge[0], edge[-1]
    width, height = last.leakage - first.leakage, last.utility - first.utility

    def above(point: Point) -> float:
        return (point.utility - first.utility) / height - (point.leakage - first.leakage) / width

    best = max(edge[1:-1], key=above)
    return best if above(best) > 0 else None
