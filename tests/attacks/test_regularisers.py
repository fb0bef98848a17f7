"""Every term against numpy, and its gradient against differences."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from attacks.objectives import norm_per_tensor
from attacks.regularisers import (
    VARIATIONS,
    Group,
    as_moments,
    frobenius_variation,
    group_distance,
    image_norm,
    moments_distance,
)
from fl.batch_norm import Moments, observed_moments

IMAGES = torch.rand(3, 2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MEAN = torch.rand(3, 2, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_frobenius_variation_is_four_norms():
    x = IMAGES.numpy()
    expected = (
        np.linalg.norm(np.diff(x, axis=3))
        + np.linalg.norm(np.diff(x, axis=2))
        + np.linalg.norm(x[:, :, 1:, 1:] - x[:, :, :-1, :-1])
        + np.linalg.norm(x[:, :, 1:, :-1] - x[:, :, :-1, 1:])
    )
    assert float(frobenius_variation(IMAGES)) == pytest.approx(expected, rel=1e-12)


def test_the_steps_of_a_hand_computed_image():
    """Along rows 3 and -4, down columns 4 and -3, down to the right 0, down to the left 1."""
    image = torch.tensor([[[[0.0, 3.0], [4.0, 0.0]]]])
    assert float(frobenius_variation(image)) == pytest.approx(5 + 5 + 0 + 1)


def test_image_norm_is_a_mean_over_images():
    expected = np.mean([np.linalg.norm(image) for image in IMAGES.numpy()])
    assert float(image_norm(IMAGES)) == pytest.approx(expected, rel=1e-12)


def test_group_distance_is_a_mean_over_images():
    expected = np.mean([np.linalg.norm(a - b) for a, b in zip(IMAGES.numpy(), MEAN.numpy(), strict=True)])
    assert float(group_distance(IMAGES, MEAN)) == pytest.approx(expected, rel=1e-12)


def test_norm_per_tensor_is_not_squared():
    dummy = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([[1.0]])}
    observed = {"a": torch.zeros(2), "b": torch.tensor([[3.0]])}
    assert float(norm_per_tensor(dummy, observed)) == pytest.approx(5 + 2)
    assert float(norm_per_tensor(dummy, observed, {"a": 2.0, "b": 0.5})) == pytest.approx(10 + 1)


def test_moments_distance_sums_norms_over_layers():
    found = {"one": Moments(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 1.0]))}
    found["two"] = Moments(torch.tensor([1.0]), torch.tensor([2.0]))
    known = as_moments(
        {
            "one.running_mean": torch.zeros(2),
            "one.running_var": torch.ones(2),
            "two.running_mean": torch.ones(1),
            "two.running_var": torch.tensor([9.0]),
        },
        torch.device("cpu"),
    )
    assert float(moments_distance(found, known)) == pytest.approx(5 + 0 + 0 + 7)


def small_net():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 3, 2), nn.BatchNorm2d(3)
    )
    generator = torch.Generator().manual_seed(2)
    net = net.double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return net


@pytest.mark.parametrize("training", [False, True])
def test_observed_moments_are_those_of_the_inputs(training):
    net = small_net().train(training)
    with observed_moments(net) as found:
        net(IMAGES)
    inputs = [net[0](IMAGES)]
    inputs.append(net[3](net[2](net[1](inputs[0]))))
    for name, taken in zip(("1", "4"), inputs, strict=True):
        values = taken.detach().numpy()
        np.testing.assert_allclose(found[name].mean.detach(), values.mean((0, 2, 3)), rtol=1e-10)
        np.testing.assert_allclose(found[name].variance.detach(), values.var((0, 2, 3)), rtol=1e-10)
    assert not any(module._forward_pre_hooks for module in net.modules())


def batch_norm_term(images):
    net = small_net().train()
    known = {
        "1": Moments(torch.full((4,), 0.3).double(), torch.full((4,), 2.0).double()),
        "4": Moments(torch.full((3,), -0.2).double(), torch.full((3,), 0.5).double()),
    }
    with observed_moments(net) as found:
        net(images)
    return moments_distance(found, known)


@pytest.mark.parametrize(
    "term",
    [*VARIATIONS.values(), image_norm, lambda images: group_distance(images, MEAN), batch_norm_term],
)
def test_gradients_are_those_of_differences(term):
    assert torch.autograd.gradcheck(term, IMAGES.clone().requires_grad_())


@pytest.mark.parametrize("term", [frobenius_variation, image_norm, lambda x: group_distance(x, x.detach())])
def test_terms_at_zero_have_a_finite_gradient(term):
    images = torch.zeros(2, 1, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(term(images), images)
    assert gradient.abs().max() == 0


def test_a_group_meets_from_its_start_on_at_every_so_many_iterations():
    due = [iteration for iteration in range(30) if Group(1.0, start=7, every=5).due(iteration)]
    assert due == [7, 12, 17, 22, 27]
    assert {b - a for a, b in pairwise(due)} == {5}
