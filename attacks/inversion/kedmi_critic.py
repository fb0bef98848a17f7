"""The discriminator of KED-MI's GAN: k classes of the attacked model, and generated images as one more.

Source: Chen, Kahla, Jia and Qi 2021, Knowledge-Enriched Distributional Model Inversion Attacks, arXiv
2010.04092, and the authors' code for the layers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fl.generators.architecture import SLOPE, initialise
from fl.models.initialise import normal

_SMALLEST = 4
_MOST_MAPS = 8
_KERNEL = 5


@dataclass(frozen=True)
class KedmiShape:
    """Everything that rebuilds a discriminator without weights; plain JSON.

    Attributes:
        channels: C of the images.
        size: Height and width of the images, in pixels.
        classes: k, classes of the attacked model.
        width: Feature maps of the first convolution.
        kernels: Similarities to the rest of the batch that an image is given as features.
        dimensions: Entries of the projection that each similarity compares.
    """

    channels: int
    size: int
    classes: int
    width: int
    kernels: int
    dimensions: int

    def document(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


class MinibatchDiscrimination(nn.Module):
    """Appends to each image's features how much they resemble those of the rest of the batch.

    With M_n the projection of image n's features by a learned tensor, cut into `kernels` rows, row b gives
    sum over m != n of exp(-|M_nb - M_mb|_1) (Salimans et al. 2016, arXiv 1606.03498, section 3.2).

    Args:
        entries: Features of an image.
        kernels: Rows.
        dimensions: Entries of a row.
    """

    def __init__(self, entries: int, kernels: int, dimensions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(entries, kernels * dimensions))
        self._rows = (kernels, dimensions)

    def forward(self, features: Tensor) -> Tensor:
        """From `n x entries` to `n x (entries + kernels)`."""
        projected = (features @ self.weight).view(len(features), *self._rows)
        distances = (projected[:, None] - projected[None]).abs().sum(-1)
        others = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
        likeness = ((-distances).exp() * others[..., None]).sum(1)
        return torch.cat([features, likeness], 1)


class KedmiCritic(nn.Module):
    """From images to k logits; the logit of a generated image is 0, so that their logsumexp is its rival.

    Strided convolutions with instance norm, minibatch discrimination, a linear layer. An image's features do
    not depend on the others, its logits do.

    Args:
        shape: What to build; weights are torch's until loaded or drawn by `draw`.
    """

    def __init__(self, shape: KedmiShape) -> None:
        super().__init__()
        self.shape = shape
        with torch.random.fork_rng(devices=[]):  # constructors draw
            convolutions, entries = _convolutions(shape)
            self.convolutions = convolutions
            self.likeness = MinibatchDiscrimination(entries, shape.kernels, shape.dimensions)
            self.linear = nn.Linear(entries + shape.kernels, shape.classes)

    def features(self, images: Tensor) -> Tensor:
        """From `n x C x H x W` in [0, 1] to the last convolution's maps, `n x entries`."""
        maps: Tensor = self.convolutions(images)
        return maps.flatten(1)

    def classify(self, features: Tensor) -> Tensor:
        """From what `features` returned to `n x k` logits."""
        logits: Tensor = self.linear(self.likeness(features))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """From `n x C x H x W` in [0, 1] to `n x k` logits."""
        return self.classify(self.features(images))

    def draw(self, stream: torch.Generator, *, kernel_deviation: float) -> None:
        """Draw weights: N(0, 2 / fan_in), and those of minibatch discrimination N(0, kernel_deviation^2)."""
        initialise(self, stream)
        normal(self.likeness.weight, stream, std=kernel_deviation)


def _convolutions(shape: KedmiShape) -> tuple[nn.Sequential, int]:
    """Return the convolutions, which halve the sides down to about 4 pixels, and the entries they give."""
    sizes = [shape.size]
    while sizes[-1] > _SMALLEST:
        sizes.append((sizes[-1] + 1) // 2)
    maps = [shape.channels, *(shape.width * min(2**i, _MOST_MAPS) for i in range(len(sizes) - 1))]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(maps):
        layers += [
            nn.Conv2d(inputs, outputs, _KERNEL, stride=2, padding=_KERNEL // 2),
            nn.InstanceNorm2d(outputs, affine=True),
            nn.LeakyReLU(SLOPE),
        ]
    return nn.Sequential(*layers), maps[-1] * sizes[-1] ** 2
