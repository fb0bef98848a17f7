import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.objectives import (
    TensorChoice,
    cosine,
    cosine_per_tensor,
    l1,
    l2,
    squared_norm,
    total_variation,
)

ORDER = ["conv.weight", "conv.bias", "head.weight"]


def pair(seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv.weight": (3, 2, 5, 5), "conv.bias": (3,), "head.weight": (4, 12)}
    draw = [
        {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        for _ in range(2)
    ]
    return draw[0], draw[1]


def flat(tensors, names):
    return np.concatenate([tensors[name].double().numpy().ravel() for name in names])


@given(st.integers(0, 1000), st.sampled_from([1e-4, 1.0, 1e3]))
@settings(max_examples=20)
def test_costs_equal_those_of_one_concatenated_vector(seed, scale):
    dummy, observed = pair(seed, scale)
    a, b = flat(dummy, observed), flat(observed, observed)

    assert float(l2(dummy, observed)) == pytest.approx(((a - b) ** 2).sum(), rel=1e-5)
    expected = 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    assert float(cosine(dummy, observed)) == pytest.approx(expected, abs=1e-6)
    assert float(squared_norm(dummy)) == pytest.approx((a**2).sum(), rel=1e-5)
    assert float(l1(dummy, observed)) == pytest.approx(np.abs(a - b).sum(), rel=1e-5)


def test_cosine_per_tensor_sums_over_tensors():
    dummy, observed = pair(3)
    expected = 0.0
    for name, tensor in observed.items():
        a, b = (t.double().numpy().ravel() for t in (dummy[name], tensor))
        expected += 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    assert float(cosine_per_tensor(dummy, observed)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("weighting", ["linear", "exp"])
def test_weights_count_each_tensor_as_scaling_it_would(weighting):
    """A weight w multiplies squares and products: the same as tensors times sqrt(w)."""
    dummy, observed = pair(4)
    weights = TensorChoice(weighting=weighting).weights(ORDER)
    expected = {"linear": [1, 2 / 3, 1 / 3], "exp": [1, math.exp(-1), math.exp(-2)]}[weighting]
    assert list(weights.values()) == pytest.approx(expected)
    scaled = [{k: t * weights[k] ** 0.5 for k, t in tensors.items()} for tensors in (dummy, observed)]
    for cost in (l2, cosine):
        assert float(cost(dummy, observed, weights)) == pytest.approx(float(cost(*scaled)), rel=1e-5)
    linear = [{k: t * weights[k] for k, t in tensors.items()} for tensors in (dummy, observed)]
    assert float(l1(dummy, observed, weights)) == pytest.approx(float(l1(*linear)), rel=1e-5)
    each = {k: float(cosine({k: dummy[k]}, {k: observed[k]})) for k in ORDER}
    assert float(cosine_per_tensor(dummy, observed, weights)) == pytest.approx(
        sum(weights[k] * cost for k, cost in each.items()), rel=1e-5
    )


@pytest.mark.parametrize(
    ("which", "number", "names"),
    [
        ("all", None, ["head.weight", "conv.bias", "conv.weight"]),
        ("first", 2, ["conv.bias", "conv.weight"]),
        ("last", 1, ["head.weight"]),
        ("last", 2, ["head.weight", "conv.bias"]),
        ("largest", 1, ["conv.bias"]),
        ("largest", 9, ["head.weight", "conv.bias", "conv.weight"]),
    ],
)
def test_tensors_are_chosen_in_the_models_order_and_not_the_updates(which, number, names):
    norms = {"head.weight": 2.0, "conv.bias": 3.0, "conv.weight": 1.0}
    observed = {name: torch.full((4,), norm) for name, norm in norms.items()}
    assert list(TensorChoice(which, number).chosen(observed, ORDER)) == names


def test_only_observed_tensors_are_matched():
    dummy, observed = pair(0)
    shared = {"head.weight": observed["head.weight"]}

    assert torch.equal(l2(dummy, shared), l2({"head.weight": dummy["head.weight"]}, shared))
    assert torch.equal(cosine(dummy, shared), cosine({"head.weight": dummy["head.weight"]}, shared))


def test_cosine_is_global_and_not_a_mean_over_tensors():
    observed = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([0.0, 100.0])}
    dummy = {"a": torch.tensor([-1.0, 0.0]), "b": torch.tensor([0.0, 100.0])}

    assert float(cosine(dummy, observed)) == pytest.approx(1 - 9999 / 10001, abs=1e-6)


def test_cosine_of_a_zero_gradient_is_finite_with_its_derivative():
    observed = {"a": torch.zeros(3)}
    dummy = torch.ones(3, requires_grad=True)

    cost = cosine({"a": dummy}, observed)
    (derivative,) = torch.autograd.grad(cost, dummy)

    assert float(cost.detach()) == 1
    assert torch.equal(derivative, torch.zeros(3))


@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (2, 3, 5, 7)])
def test_total_variation_equals_a_loop_over_neighbours(shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    n, C, H, W = shape
    values = images.numpy()
    steps = {"horizontal": [], "vertical": []}
    for index in np.ndindex(n, C, H, W):
        i, c, y, x = index
        if x + 1 < W:
            steps["horizontal"].append(abs(values[i, c, y, x + 1] - values[i, c, y, x]))
        if y + 1 < H:
            steps["vertical"].append(abs(values[i, c, y + 1, x] - values[i, c, y, x]))

    expected = np.mean(steps["horizontal"]) + np.mean(steps["vertical"])
    assert float(total_variation(images)) == pytest.approx(expected, rel=1e-5)
