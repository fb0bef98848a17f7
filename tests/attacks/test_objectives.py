import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.objectives import cosine, l2, squared_norm, total_variation


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
@settings(max_examples=20, deadline=None)
def test_costs_equal_those_of_one_concatenated_vector(seed, scale):
    dummy, observed = pair(seed, scale)
    a, b = flat(dummy, observed), flat(observed, observed)

    assert float(l2(dummy, observed)) == pytest.approx(((a - b) ** 2).sum(), rel=1e-5)
    expected = 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    assert float(cosine(dummy, observed)) == pytest.approx(expected, abs=1e-6)
    assert float(squared_norm(dummy)) == pytest.approx((a**2).sum(), rel=1e-5)


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
