"""BigGAN-deep's generator of 256x256 images of ImageNet's classes, for weights that are there already.

Source: Brock et al. 2019, Large Scale GAN Training for High Fidelity Natural Image Synthesis, arXiv
1809.11096, appendix B, figure 16 and table 8. What enters it is a latent vector and the embedding of a class,
concatenated; every block takes both again. Weights are those after spectral normalisation. Batch norm uses
stored statistics, so an image does not depend on its neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fl.generators.layout import Layout
from fl.generators.synthesis import Synthesis

CHANNELS = 3

EPSILON = 1e-4
"""In batch norm."""

_SMALLEST = 4
_REDUCTION = 4
"""Feature maps of a block over those inside its bottleneck."""

_ATTENTION_REDUCTION = 8


class Step(NamedTuple):
    """A residual block: maps that enter and leave it, in units of the width, and whether it doubles sides."""

    inputs: int
    outputs: int
    doubles: bool


STEPS = (
    Step(16, 16, doubles=False),
    Step(16, 16, doubles=True),
    Step(16, 16, doubles=False),
    Step(16, 8, doubles=True),
    Step(8, 8, doubles=False),
    Step(8, 8, doubles=True),
    Step(8, 8, doubles=False),
    Step(8, 4, doubles=True),
    Step(4, 4, doubles=False),
    Step(4, 2, doubles=True),
    Step(2, 2, doubles=False),
    Step(2, 1, doubles=True),
)
"""Table 8, from 4 pixels a side to 256."""

ATTENTION = 8
"""The step before which positions attend to one another, at 64 pixels a side."""


class StoredNorm(nn.Module):
    """Batch norm by stored statistics, scaled and shifted by what the style says.

    Args:
        styles: Entries of a style vector.
        maps: Feature maps.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, styles: int, maps: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(maps))
        self.register_buffer("variance", torch.ones(maps))
        self.scale = nn.Linear(styles, maps, bias=False)
        self.offset = nn.Linear(styles, maps, bias=False)

    def forward(self, features: Tensor, styles: Tensor) -> Tensor:
        """Keep the shape of `n x maps x H x W`."""
        scale = (1 + self.scale(styles)) * (self.variance + EPSILON).rsqrt()
        shift = self.offset(styles) - self.mean * scale
        normalised: Tensor = features * scale[..., None, None] + shift[..., None, None]
        return normalised


class Residual(nn.Module):
    """A bottleneck of four convolutions beside a path that drops maps instead of projecting (figure 16).

    Args:
        inputs: Feature maps that enter.
        outputs: Feature maps that leave: no more.
        styles: Entries of a style vector.
        doubles: Whether sides are doubled.
    """

    def __init__(self, inputs: int, outputs: int, styles: int, *, doubles: bool) -> None:
        super().__init__()
        inner = inputs // _REDUCTION
        self.norms = nn.ModuleList(StoredNorm(styles, maps) for maps in (inputs, inner, inner, inner))
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(inputs, inner, 1),
                nn.Conv2d(inner, inner, 3, padding=1),
                nn.Conv2d(inner, inner, 3, padding=1),
                nn.Conv2d(inner, outputs, 1),
            ]
        )
        self._outputs = outputs
        self._factor = 2.0 if doubles else None

    def forward(self, features: Tensor, styles: Tensor) -> Tensor:
        """From `n x inputs x H x W` to `n x outputs x H x W`, or sides twice as long."""
        found = features
        for number, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            found = F.relu(norm(found, styles))
            found = conv(self._enlarged(found) if number == 1 else found)
        return found + self._enlarged(features[:, : self._outputs])

    def _enlarged(self, features: Tensor) -> Tensor:
        if self._factor is None:
            return features
        return F.interpolate(features, scale_factor=self._factor, mode="nearest")


class Attention(nn.Module):
    """Every position takes from all others what resembles it (Zhang et al. 2019, arXiv 1805.08318).

    Args:
        maps: Feature maps.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(maps, maps // _ATTENTION_REDUCTION, 1, bias=False)
        self.key = nn.Conv2d(maps, maps // _ATTENTION_REDUCTION, 1, bias=False)
        self.value = nn.Conv2d(maps, maps // 2, 1, bias=False)
        self.back = nn.Conv2d(maps // 2, maps, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape of `n x maps x H x W`."""
        queries = self.query(features).flatten(2)
        keys = F.max_pool2d(self.key(features), 2).flatten(2)
        values = F.max_pool2d(self.value(features), 2).flatten(2)
        weights = (queries.transpose(1, 2) @ keys).softmax(-1)
        found = (values @ weights.transpose(1, 2)).view(-1, values.shape[1], *features.shape[2:])
        attended: Tensor = features + self.gain * self.back(found)
        return attended


class Seed(nn.Module):
    """From style vectors to the smallest maps.

    Args:
        styles: Entries of a style vector.
        maps: Feature maps.
    """

    def __init__(self, styles: int, maps: int) -> None:
        super().__init__()
        self.linear = nn.Linear(styles, _SMALLEST**2 * maps)
        self._shape = (_SMALLEST, _SMALLEST, maps)

    def forward(self, features: Tensor, styles: Tensor) -> Tensor:
        """From `n x styles`, the maps last in memory, to `n x maps x 4 x 4`."""
        found: Tensor = self.linear(styles)
        return found.view(-1, *self._shape).permute(0, 3, 1, 2)


class Attended(nn.Module):
    """A residual block behind attention.

    Args:
        attention: Comes first.
        residual: Comes second.
    """

    def __init__(self, attention: Attention, residual: Residual) -> None:
        super().__init__()
        self.attention = attention
        self.residual = residual

    def forward(self, features: Tensor, styles: Tensor) -> Tensor:
        """Do as the residual block does."""
        found: Tensor = self.residual(self.attention(features), styles)
        return found


def synthesis(layout: Layout) -> Synthesis:
    """Return the synthesis, with torch's weights."""
    blocks: list[nn.Module] = [Seed(layout.styles, STEPS[0].inputs * layout.width)]
    for number, step in enumerate(STEPS):
        maps = step.inputs * layout.width
        block = Residual(maps, step.outputs * layout.width, layout.styles, doubles=step.doubles)
        blocks.append(Attended(Attention(maps), block) if number == ATTENTION else block)
    norm = nn.BatchNorm2d(layout.width, eps=EPSILON)
    to_images = nn.Sequential(norm, nn.ReLU(), nn.Conv2d(layout.width, CHANNELS, 3, padding=1))
    return Synthesis(blocks, to_images, layout.shown, styled=True)
