"""The generator and critic that GMI's released code trains as WGAN-GP, on faces and on digits.

Source: the released code of Chen et al. 2021, arXiv 2010.04092 (KED-MI), and of Peng et al. 2022, arXiv
2206.05483 (BiDO), which attack by Zhang et al. 2020, The Secret Revealer, arXiv 1911.07135 (GMI).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from fl.generators.layout import Layout
from fl.generators.synthesis import Synthesis
from fl.models.initialise import pytorch_default

SLOPE = 0.2
"""Of negative inputs in the critic."""

_SMALLEST = 4
_KERNEL = 5


class _HalvedConvTranspose2d(nn.ConvTranspose2d):
    """Gives half of what it would: (tanh(x / 2) + 1) / 2 is the released nets' sigmoid(x)."""

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        found: Tensor = super().forward(features, output_size) / 2
        return found


def synthesis(layout: Layout) -> Synthesis:
    """Return the synthesis, with torch's weights; 64 pixels: the net for faces, 32: the one for digits."""
    maps = [scale.maps for scale in layout.scales]
    entries = maps[0] * _SMALLEST**2
    first = nn.Sequential(
        nn.Linear(layout.styles, entries, bias=False),
        nn.BatchNorm1d(entries),
        nn.ReLU(),
        nn.Unflatten(1, (maps[0], _SMALLEST, _SMALLEST)),
    )
    blocks: list[nn.Module] = [first]
    for inputs, outputs in pairwise(maps):
        enlarge = nn.ConvTranspose2d(
            inputs, outputs, _KERNEL, stride=2, padding=2, output_padding=1, bias=False
        )
        blocks.append(nn.Sequential(enlarge, nn.BatchNorm2d(outputs), nn.ReLU()))
    to_images = _HalvedConvTranspose2d(
        maps[-1], layout.channels, _KERNEL, stride=2, padding=2, output_padding=1
    )
    return Synthesis(blocks, to_images, layout.shown)


def critic_features(layout: Layout) -> tuple[nn.Sequential, int]:
    """Return the critic up to its last layer, with torch's weights, and how many features it gives.

    The released critic ends in a convolution of the last 4 x 4 maps, which is a fully connected layer.
    """
    maps = [scale.maps for scale in reversed(layout.scales)]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((layout.channels, *maps)):
        layers.append(nn.Conv2d(inputs, outputs, _KERNEL, stride=2, padding=2))
        if len(layers) > 1:
            layers.append(nn.InstanceNorm2d(outputs, affine=True))
        layers.append(nn.LeakyReLU(SLOPE))
    return nn.Sequential(*layers, nn.Flatten()), maps[-1] * _SMALLEST**2


def initialise(module: nn.Module, stream: torch.Generator) -> None:
    """Draw all weights as PyTorch's constructors do, from a stream."""
    for layer in module.modules():
        pytorch_default(layer, stream)
