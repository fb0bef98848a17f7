"""Class activation maps against loops that follow the papers' equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fl.cam import grad_cam, grad_cam_pp
from fl.errors import NotApplicableError


class Pooled(nn.Module):
    """Convolution, batch norm, softplus, global average pooling, head: gradients are known in closed form."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.Softplus()
        self.head = nn.Linear(4, outputs)

    @property
    def cam_layer(self) -> nn.Module:
        return self.act

    def forward(self, x):
        return self.head(self.act(self.norm(self.conv(x))).mean((2, 3)))


@pytest.fixture
def model():
    generator = torch.Generator().manual_seed(3)
    model = Pooled()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        model.norm.running_mean.copy_(torch.randn(4, generator=generator))
    return model.train()


@pytest.fixture
def inputs():
    return torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(4))


def by_hand(model, image, label, *, plus_plus):
    """One image in float64 by explicit loops; the head on a mean makes d score / d A = head / (h w)."""
    model = model.double().eval()
    with torch.no_grad():
        values = model.act(model.norm(model.conv(image[None].double())))[0]
        score = float(model(image[None].double())[0, label])
    channels, height, width = values.shape
    total = torch.zeros(height, width, dtype=torch.float64)
    for k in range(channels):
        gradient = float(model.head.weight[label, k].detach()) / (height * width)
        weight = gradient
        if plus_plus:
            cubes = sum(float(a) * gradient**3 for a in values[k].flatten())
            alpha = gradient**2 / (2 * gradient**2 + cubes + 1e-7)
            weight = height * width * alpha * max(0.0, math.exp(score) * gradient)
        total += weight * values[k]
    enlarged = F.interpolate(total.clamp(min=0)[None, None], size=image.shape[1:], mode="bilinear")[0, 0]
    span = enlarged.max() - enlarged.min()
    return (enlarged - enlarged.min()) / span if span > 0 else torch.zeros_like(enlarged)


@pytest.mark.parametrize(("cam", "plus_plus"), [(grad_cam, False), (grad_cam_pp, True)])
def test_a_map_is_what_the_paper_says(model, inputs, cam, plus_plus):
    labels = torch.tensor([0, 1, 2, 1, 0])
    maps = cam(model, inputs, labels)
    assert maps.shape == (5, 8, 8)
    for got, image, label in zip(maps, inputs, labels.tolist(), strict=True):
        expected = by_hand(model, image, label, plus_plus=plus_plus)
        torch.testing.assert_close(got.double(), expected, atol=2e-4, rtol=2e-4)
        model.float()


@pytest.mark.parametrize("cam", [grad_cam, grad_cam_pp])
def test_the_model_is_left_as_it_was(model, inputs, cam):
    model.norm.eval()  # a mixed mode, as with frozen batch norm
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    with torch.no_grad():
        cam(model, inputs, torch.zeros(5, dtype=torch.long))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("cam", [grad_cam, grad_cam_pp])
def test_images_of_a_batch_do_not_mix(model, inputs, cam):
    labels = torch.tensor([0, 1, 2, 1, 0])
    alone = torch.cat([cam(model, inputs[i : i + 1], labels[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(cam(model, inputs, labels), alone, atol=1e-5, rtol=1e-5)


def test_a_single_logit_stands_for_two_classes(inputs):
    single, pair = Pooled(1).eval(), Pooled(2).eval()
    pair.load_state_dict(
        {**single.state_dict(), "head.weight": torch.zeros(2, 4), "head.bias": torch.zeros(2)}
    )
    with torch.no_grad():
        pair.head.weight.copy_(torch.cat([-single.head.weight, single.head.weight]))
    labels = torch.tensor([0, 1, 1, 0, 1])
    torch.testing.assert_close(grad_cam(single, inputs, labels), grad_cam(pair, inputs, labels))


def test_a_constant_map_is_zero(model):
    with torch.no_grad():
        model.head.weight.fill_(-1.0)  # every channel speaks against every class
    maps = grad_cam(
        model, torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1])
    )
    assert torch.equal(maps, torch.zeros(2, 8, 8))


def test_no_images_give_no_maps(model):
    assert grad_cam_pp(model, torch.zeros(0, 2, 8, 8), torch.zeros(0, dtype=torch.long)).shape == (0, 8, 8)


def test_a_model_without_a_spatial_layer_is_refused(inputs):
    with pytest.raises(NotApplicableError, match="spatial layer"):
        grad_cam(nn.Linear(2, 2), inputs, torch.zeros(5, dtype=torch.long))
