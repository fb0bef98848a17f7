import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.front import Point, front, hypervolume, knee

POINTS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1, 10)).map(lambda p: Point("", p[0] / 10, p[1] / 10)),
    max_size=8,
)


def beats(one, other):
    return (
        one.leakage <= other.leakage
        and one.utility >= other.utility
        and (one.leakage < other.leakage or one.utility > other.utility)
    )


@given(POINTS)
def test_a_front_holds_what_nothing_beats(points):
    found = front(points)
    unbeaten = {p[1:] for p in points if not any(beats(q, p) for q in points)}
    assert {p[1:] for p in found} == unbeaten
    assert found == sorted(found, key=lambda p: p.leakage)


@given(POINTS)
def test_hypervolume_is_the_area_counted_in_squares(points):
    squares = sum(
        any(p.leakage <= x / 10 and p.utility >= (y + 1) / 10 for p in points)
        for x, y in itertools.product(range(10), range(10))
    )
    assert hypervolume(points) == pytest.approx(squares / 100)


def test_points_beyond_the_reference_add_nothing():
    inside = [Point("a", 0.2, 0.5)]
    assert hypervolume([*inside, Point("b", 0.9, 1.0)], reference_leakage=0.6) == pytest.approx(0.2)
    assert hypervolume([]) == 0


def test_the_knee_is_farthest_from_the_line():
    curve = [Point(str(x), float(x), float(np.sqrt(x))) for x in np.linspace(0, 1, 101)]
    found = knee(curve)
    assert found.leakage == pytest.approx(0.25)  # d/dx (sqrt(x) - x) = 0
    assert knee(curve[:2]) is None
    straight = [Point("", 0.0, 0.0), Point("", 0.5, 0.4), Point("", 1.0, 1.0)]
    assert knee(straight) is None
