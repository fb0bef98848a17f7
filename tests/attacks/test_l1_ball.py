import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attacks.l1_ball import projected
from fl.seeds import Streams

entries = st.floats(-10, 10, width=32)


@given(st.lists(entries, min_size=1, max_size=8), st.floats(0, 20, width=32))
def test_it_is_the_nearest_point_of_the_ball(point, radius):
    """p is nearest to x in a convex set exactly where no vertex v has (x - p)(v - p) > 0."""
    x = torch.tensor([point])
    p = projected(x, radius)[0].double()
    assert p.abs().sum() <= radius * (1 + 1e-5) + 1e-6
    if x.abs().double().sum() <= radius:
        assert torch.equal(p, x[0].double())
        return
    vertices = torch.cat([radius * torch.eye(len(point)), -radius * torch.eye(len(point))]).double()
    angles = ((x[0].double() - p) * (vertices - p)).sum(1)
    assert angles.max() <= 1e-4 * max(1.0, radius)


def test_rows_are_projected_each_on_its_own():
    rows = (
        torch.randn(5, 40, generator=Streams(0).torch("rows")) * torch.tensor([0.01, 1, 3, 10, 100])[:, None]
    )
    together = projected(rows, 8.0)
    for row, alone in zip(rows, together, strict=True):
        assert torch.equal(projected(row[None], 8.0)[0], alone)
    assert torch.equal(together[0], rows[0])
    assert together[1:].abs().sum(1).tolist() == pytest.approx([8.0] * 4, rel=1e-5)


def test_a_ball_without_radius_is_its_centre():
    rows = torch.randn(3, 7, generator=Streams(0).torch("rows"))
    assert torch.equal(projected(rows, 0.0), torch.zeros(3, 7))
    assert torch.equal(projected(torch.zeros(3, 7), 0.0), torch.zeros(3, 7))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_holds_nobody_up(wrong):
    """Newton's method would never come to rest on it."""
    rows = torch.tensor([[wrong, 1.0, 2.0], [5.0, 1.0, 0.0]])
    found = projected(rows, 1.0)
    assert not found[0].isfinite().all()
    assert torch.equal(found[1:], projected(rows[1:], 1.0))


def test_long_rows_stay_within_the_radius():
    """As many entries as maps of 128 x 128 x 32: the sums are taken in double precision."""
    rows = torch.randn(2, 2**19, generator=Streams(0).torch("rows"))
    sums = projected(rows, 1000.0).double().abs().sum(1)
    assert sums.tolist() == pytest.approx([1000.0] * 2, rel=1e-4)
