"""Generators of images and the critics that they are trained against.

Nothing here mixes the images of a batch: features are normalised per position (Karras et al. 2018, arXiv
1710.10196, section 4.2), and the packaged DCGAN's batch norm uses its stored statistics. So what a latent
vector gives does not depend on its neighbours, and a generator can be called under `torch.func`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fl.generators.layout import Layout
from fl.models.initialise import kaiming_normal, normal

SLOPE = 0.2
"""Of negative inputs, in generator and critic (Radford et al. 2016, arXiv 1511.06434, section 3, for the
latter)."""

EPSILON = 1e-8
_MOST_MAPS = 4
_SMALLEST = 4


class Synthesis(nn.Module):
    """From style vectors to images, block by block.

    Args:
        blocks: From `n x latent` to feature maps, then from maps to larger maps.
        to_images: From the last maps to `n x C x H x W` in any range.
        shown: Side that images are averaged down to, or None.

    Attributes:
        blocks: As given.
        to_images: As given.
    """

    def __init__(self, blocks: list[nn.Module], to_images: nn.Module, shown: int | None) -> None:
        super().__init__()
        self._shown = shown
        self.blocks = nn.ModuleList(blocks)
        self.to_images = to_images

    def forward(self, styles: Tensor) -> Tensor:
        """From `n x latent` to images, `n x C x H x W` in [0, 1]."""
        return self.after(styles, 0)

    def after(self, features: Tensor, block: int) -> Tensor:
        """Return the images that features entering the block of that number become."""
        for layer in self.blocks[block:]:
            features = layer(features)
        images: Tensor = (self.to_images(features).tanh() + 1) / 2
        return images if self._shown is None else F.adaptive_avg_pool2d(images, self._shown)


class Generator(nn.Module):
    """From latent vectors, N(0, 1) in every entry, to images.

    Args:
        layout: What to build; weights are torch's until loaded or drawn by `initialise`.

    Attributes:
        layout: As given.
        mapping: From latent to style vectors, both `n x latent`; the identity without mapping layers.
        synthesis: From style vectors to images.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        with torch.random.fork_rng(devices=[]):  # constructors draw
            self.mapping = _mapping(layout)
            self.synthesis = _upsampling(layout) if layout.family == "upsampling" else _transposed(layout)

    @property
    def latent(self) -> int:
        """Entries of a latent vector."""
        return self.layout.latent

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of the synthesis, from the smallest feature maps to the largest."""
        return self.synthesis.blocks

    def forward(self, latents: Tensor) -> Tensor:
        """From `n x latent` to images, `n x C x H x W` in [0, 1]."""
        images: Tensor = self.synthesis(self.mapping(latents))
        return images


class UnitLength(nn.Module):
    """Divides by the root mean square over axis 1: of each latent vector, or at each position of a map."""

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape of `n x channels x ...`."""
        return features * (features.square().mean(1, keepdim=True) + EPSILON).rsqrt()


class _Seed(nn.Module):
    """From style vectors to the smallest maps."""

    def __init__(self, latent: int, maps: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(latent, maps * size * size)
        self._shape = (maps, size, size)
        self._norm = UnitLength()

    def forward(self, styles: Tensor) -> Tensor:
        maps = self.linear(styles).unflatten(1, self._shape)
        return F.leaky_relu(self._norm(maps), SLOPE)


class _Enlarge(nn.Module):
    """Doubles the maps' sides (nearest, cut to size) and convolves: no checkerboards (Odena et al. 2016)."""

    def __init__(self, inputs: int, maps: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, maps, 3, padding=1)
        self._size = size
        self._norm = UnitLength()

    def forward(self, features: Tensor) -> Tensor:
        doubled = F.interpolate(features, scale_factor=2.0, mode="nearest")
        cut = doubled[..., : self._size, : self._size]
        return F.leaky_relu(self._norm(self.conv(cut)), SLOPE)


class Critic(nn.Module):
    """From images to one score each, by strided convolutions without normalisation.

    Gulrajani et al. 2017 (arXiv 1704.00028, section 4) leave batch norm out of the critic, since the penalty
    is on each image's own gradient.

    Args:
        layout: Of the generator that it judges; mirrors its widths.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        sizes = _sizes(layout.size)
        maps = _maps(layout.width, len(sizes))[::-1]
        with torch.random.fork_rng(devices=[]):
            layers = [nn.Conv2d(layout.channels, maps[0], 3, padding=1), nn.LeakyReLU(SLOPE)]
            for inputs, outputs in pairwise(maps):
                layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
            self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(maps[-1] * sizes[0] ** 2, 1))

    def forward(self, images: Tensor) -> Tensor:
        """From `n x C x H x W` in [0, 1] to `n` scores."""
        scores: Tensor = self.layers(images * 2 - 1)
        return scores.squeeze(1)


def initialise(module: nn.Module, stream: torch.Generator) -> None:
    """Draw weights from N(0, 2 / fan_in), biases zero; the layer that makes images from N(0, 1 / fan_in)."""
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        if name.endswith("to_images"):
            normal(layer.weight, stream, std=layer.weight[0].numel() ** -0.5)
        else:
            kaiming_normal(layer.weight, stream)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _sizes(size: int) -> list[int]:
    """Return the maps' sides, from the smallest to the image's own, each half of the next, rounded up."""
    sizes = [size]
    while sizes[0] > _SMALLEST:
        sizes.insert(0, (sizes[0] + 1) // 2)
    return sizes


def _maps(width: int, blocks: int) -> list[int]:
    return [width * min(2 ** (blocks - 1 - i), _MOST_MAPS) for i in range(blocks)]


def _mapping(layout: Layout) -> nn.Module:
    if not layout.mapping_layers:
        return nn.Identity()
    layers: list[nn.Module] = [UnitLength()]
    for _ in range(layout.mapping_layers):
        layers += [nn.Linear(layout.latent, layout.latent), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


def _upsampling(layout: Layout) -> Synthesis:
    sizes = _sizes(layout.size)
    maps = _maps(layout.width, len(sizes))
    blocks: list[nn.Module] = [_Seed(layout.latent, maps[0], sizes[0])]
    for i in range(1, len(sizes)):
        blocks.append(_Enlarge(maps[i - 1], maps[i], sizes[i]))
    return Synthesis(blocks, nn.Conv2d(maps[-1], layout.channels, 3, padding=1), layout.shown)


def _transposed(layout: Layout) -> Synthesis:
    """Radford et al. 2016, figure 1, as laid out in PyTorch's DCGAN tutorial: 4, 8, 16, 32, 64 pixels."""
    maps = [layout.width * factor for factor in (8, 4, 2, 1)]
    first = nn.Sequential(
        nn.Unflatten(1, (layout.latent, 1, 1)),
        nn.ConvTranspose2d(layout.latent, maps[0], 4, bias=False),
        nn.BatchNorm2d(maps[0]),
        nn.ReLU(),
    )
    blocks: list[nn.Module] = [first]
    for inputs, outputs in pairwise(maps):
        enlarge = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        blocks.append(nn.Sequential(enlarge, nn.BatchNorm2d(outputs), nn.ReLU()))
    to_images = nn.ConvTranspose2d(maps[-1], layout.channels, 4, stride=2, padding=1, bias=False)
    return Synthesis(blocks, to_images, layout.shown)
