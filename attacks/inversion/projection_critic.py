"""A discriminator that takes labels: residual blocks, spectral norm, and a projection onto the label.

Sources: Miyato and Koyama 2018, cGANs with Projection Discriminator, arXiv 1802.05637, equation 3; Miyato et
al. 2018, arXiv 1802.05957, for spectral norm; PLG-MI's authors' code for the blocks.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.inversion import spectral
from attacks.inversion.spectral import SpectralConv, SpectralLinear

_SMALLEST = 4
_MOST_MAPS = 16


class _First(nn.Module):
    """The block that takes images: no activation before it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = SpectralConv(inputs, outputs, 3)
        self.second = SpectralConv(outputs, outputs, 3)
        self.past = SpectralConv(inputs, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        found = self.second(self.first(images).relu())
        sides: Tensor = F.avg_pool2d(found, 2) + self.past(F.avg_pool2d(images, 2))
        return sides


class _Block(_First):
    """A residual block that halves the sides."""

    def forward(self, features: Tensor) -> Tensor:
        found = self.second(self.first(features.relu()).relu())
        sides: Tensor = F.avg_pool2d(found + self.past(features), 2)
        return sides


class ProjectionCritic(nn.Module):
    """From images and labels to one score each.

    Args:
        channels: C of the images.
        size: Height and width of the images, in pixels.
        classes: Number of labels.
        width: Feature maps of the first block; each next one has twice as many, up to 16 times.
    """

    def __init__(self, channels: int, size: int, classes: int, width: int) -> None:
        super().__init__()
        maps, side = [channels], size
        while side > _SMALLEST:
            maps.append(width * min(2 ** (len(maps) - 1), _MOST_MAPS))
            side //= 2
        with torch.random.fork_rng(devices=[]):  # constructors draw
            sizes = list(pairwise(maps))
            self.blocks = nn.Sequential(_First(*sizes[0]), *(_Block(*size) for size in sizes[1:]))
            self.linear = SpectralLinear(maps[-1], 1)
            self.embedding = SpectralLinear(classes, maps[-1], bias=False)
        self._classes = classes

    def features(self, images: Tensor) -> Tensor:
        """From `n x C x H x W` in [0, 1] to the last block's maps, summed over positions, `n x entries`."""
        maps: Tensor = self.blocks(images)
        return maps.relu().sum((2, 3))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """From `n x C x H x W` in [0, 1] and `n` int64 labels to `n` scores, higher if likelier real."""
        features = self.features(images)
        onto = self.embedding(F.one_hot(labels, self._classes).to(features))
        scores: Tensor = self.linear(features).squeeze(1) + (onto * features).sum(1)
        return scores

    def draw(self, stream: torch.Generator) -> None:
        """Draw weights."""
        spectral.draw(self, stream)
