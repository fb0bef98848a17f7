import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defenses.catalog import ClippingConfig
from defenses.clipping import Clipping
from defenses.norms import global_norm
from fl.seeds import Streams
from fl.types import Update
from harness.testing import SmallProblem


def protect(tensors, bound, small=None, scope="global"):
    small = small or SmallProblem()
    client = Clipping(ClippingConfig(bound=bound, scope=scope)).for_client(small.client_context)
    update = Update(small.kind, tensors, {}, 1)
    return client.protect(update, small.step(Streams(0).torch("protect"))).tensors


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
@settings(max_examples=30)
def test_the_norm_over_all_tensors_is_bounded_and_the_direction_kept(length, bound):
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([[0.0], [4.0]])
    tensors = {"a": a / 5 * length, "b": b / 5 * length}
    clipped = protect(tensors, bound)
    assert float(global_norm(clipped)) == pytest.approx(min(length, bound), rel=1e-5)
    joined = torch.cat([clipped["a"].flatten(), clipped["b"].flatten()])
    torch.testing.assert_close(joined / joined.norm(), torch.tensor([0.6, 0.0, 0.0, 0.8]))


def test_within_the_bound_no_bit_changes():
    update = SmallProblem().update
    norm = float(global_norm(update.tensors))
    clipped = protect(update.tensors, norm * 1.001)
    assert all(torch.equal(clipped[name], tensor) for name, tensor in update.tensors.items())


def test_a_zero_update_stays_zero_with_finite_derivatives():
    zero = torch.zeros(3, requires_grad=True)
    clipped = protect({"a": zero}, 1.0)["a"]
    (derivative,) = torch.autograd.grad(clipped.sum(), zero)
    assert not clipped.any()
    assert derivative.isfinite().all()


def test_on_a_delta_the_bound_is_in_units_of_the_gradient():
    small = SmallProblem(kind="delta", steps=4, lr=0.05)
    clipped = protect({"a": torch.ones(100)}, 1.0, small)
    assert float(global_norm(clipped)) == pytest.approx(0.05 * 4)


@given(st.floats(1e-2, 1e2))
@settings(max_examples=20)
def test_per_tensor_each_norm_is_bounded_on_its_own(bound):
    tensors = {"long": torch.tensor([3.0, 4.0]), "short": torch.tensor([[0.03], [-0.04]])}
    clipped = protect(tensors, bound, scope="per_tensor")
    for name, length in (("long", 5.0), ("short", 0.05)):
        expected = tensors[name] * min(1.0, bound / length)
        torch.testing.assert_close(clipped[name], expected)


def test_per_tensor_within_the_bound_no_bit_changes():
    update = SmallProblem().update
    largest = max(float(tensor.norm()) for tensor in update.tensors.values())
    clipped = protect(update.tensors, largest * 1.001, scope="per_tensor")
    assert all(torch.equal(clipped[name], tensor) for name, tensor in update.tensors.items())


def test_the_scope_came_later_and_leaves_ids_alone():
    assert ClippingConfig().resolved() == {"bound": 1.0}
    assert ClippingConfig(scope="per_tensor").resolved() == {"bound": 1.0, "scope": "per_tensor"}


def test_the_estimated_bounds_are_the_observed_norms():
    small = SmallProblem(defense=Clipping(ClippingConfig(bound=0.1, scope="per_tensor")))
    for name, bound in small.defense.estimate(small.observation).items():
        assert float(bound) == pytest.approx(float(small.update.tensors[name].norm()))
        assert float(bound) <= 0.1 * 1.0001


def test_the_estimated_bound_is_the_observed_norm():
    small = SmallProblem(defense=Clipping(ClippingConfig(bound=0.5)))
    assert float(small.defense.estimate(small.observation)) == pytest.approx(0.5, rel=1e-5)
