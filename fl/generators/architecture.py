"""Generators of images and the critics that they are trained against.

No generator in use mixes the images of a batch: ours normalises features per position (Karras et al. 2018,
arXiv 1710.10196, section 4.2), and batch norm, where another has it, uses its stored statistics. So what a
latent vector gives does not depend on its neighbours, and a generator can be called under `torch.func`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fl.generators import biggan, ggl, gmi, styled
from fl.generators.layout import Family, Layout
from fl.generators.synthesis import Synthesis
from fl.models.initialise import kaiming_normal, normal

SLOPE = 0.2
"""Of negative inputs, in generator and critic (Radford et al. 2016, arXiv 1511.06434, section 3, for the
latter)."""

EPSILON = 1e-8


class Generator(nn.Module):
    """From latent vectors, N(0, 1) in every entry, and labels where it draws by class, to images.

    Args:
        layout: What to build; weights are torch's until loaded or drawn by `initialise`.

    Attributes:
        layout: As given.
        mapping: From latent to style vectors, both `n x latent`; the identity without mapping layers.
        embedding: From labels as vectors to what is appended to the style vectors; None without labels.
        synthesis: From style vectors to images.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        with torch.random.fork_rng(devices=[]):  # constructors draw
            self.mapping = _mapping(layout)
            self.synthesis = _SYNTHESES[layout.family](layout)
            self.embedding = nn.Linear(layout.classes, layout.latent, bias=False) if layout.classes else None

    @property
    def latent(self) -> int:
        """Entries of a latent vector."""
        return self.layout.latent

    @property
    def classes(self) -> int:
        """Entries of a label as a vector; 0: it takes no labels."""
        return self.layout.classes

    @property
    def layers(self) -> int:
        """Style vectors that the synthesis takes, `n x layers x style`; 1: `n x style`, as any takes."""
        return len(self.blocks) if self.layout.family == "styled" else 1

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of the synthesis, from the smallest feature maps to the largest."""
        return self.synthesis.blocks

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """From `n x latent` to images, `n x C x H x W` in [0, 1]; labels as `styles` takes them."""
        images: Tensor = self.synthesis(self.styles(latents, labels))
        return images

    def styles(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """From latent to style vectors, the embedding of the labels appended (Mirza and Osindero 2014).

        Args:
            latents: `n x latent`.
            labels: `n` int64 classes, or `n x classes`, one-hot or any number of ones; None exactly where
                there are no classes.

        Raises:
            ValueError: If labels are missing, or given to a generator without classes.
        """
        styles: Tensor = self.mapping(latents)
        if (labels is None) != (self.embedding is None):
            wanted = f"labels of {self.classes} classes" if self.classes else "no labels"
            raise ValueError(f"expected {wanted}, got {'none' if labels is None else 'some'}")
        if self.embedding is None or labels is None:
            return styles
        return torch.cat([styles, self.embedding(as_vectors(labels, self.classes).to(styles))], 1)


def as_vectors(labels: Tensor, classes: int) -> Tensor:
    """From `n` int64 or `n x classes` to `n x classes` float."""
    return F.one_hot(labels, classes).float() if labels.ndim == 1 else labels.float()


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
    is on each image's own gradient. Where there are labels, the product of their embedding and the features
    is added to the score (Miyato and Koyama 2018, arXiv 1802.05637, equation 3).

    Args:
        layout: Of the generator that it judges; mirrors its widths.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self._classes = layout.classes
        self._centred = layout.family != "gmi"
        with torch.random.fork_rng(devices=[]):
            features, entries = _CRITICS.get(layout.family, _features)(layout)
            self.layers = nn.Sequential(*features, nn.Linear(entries, 1))
            self.embedding = nn.Linear(layout.classes, entries, bias=False) if layout.classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """From `n x C x H x W` in [0, 1], and labels as `Generator.styles` takes them, to `n` scores."""
        features = self.features(images)
        scores: Tensor = self.layers[-1](features).squeeze(1)
        if self.embedding is None or labels is None:
            return scores
        projected: Tensor = self.embedding(as_vectors(labels, self._classes)) * features
        return scores + projected.sum(1)

    def features(self, images: Tensor) -> Tensor:
        """From `n x C x H x W` in [0, 1] to what the last layer takes, `n x entries`."""
        features: Tensor = self.layers[:-1](images * 2 - 1 if self._centred else images)
        return features


def initialise(module: nn.Module, stream: torch.Generator) -> None:
    """Draw weights from N(0, 2 / fan_in), biases zero; the layer that makes images from N(0, 1 / fan_in).

    The embedding of a label is drawn as the latent vectors are, N(0, 1), in a critic with the last layer's
    variance.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, styled.Constant):
            normal(layer.maps, stream, std=1.0)
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        if name == "embedding":
            entries = layer.weight.shape[0]
            normal(layer.weight, stream, std=(2 / entries) ** 0.5 if isinstance(module, Critic) else 1.0)
        elif name.endswith("to_images"):
            normal(layer.weight, stream, std=layer.weight[0].numel() ** -0.5)
        else:
            kaiming_normal(layer.weight, stream)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _mapping(layout: Layout) -> nn.Module:
    if not layout.mapping_layers:
        return nn.Identity()
    layers: list[nn.Module] = [UnitLength()]
    for _ in range(layout.mapping_layers):
        layers += [nn.Linear(layout.latent, layout.latent), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


def _upsampling(layout: Layout) -> Synthesis:
    scales = layout.scales
    blocks: list[nn.Module] = [_Seed(layout.styles, scales[0].maps, scales[0].size)]
    for last, scale in pairwise(scales):
        blocks.append(_Enlarge(last.maps, scale.maps, scale.size))
    return Synthesis(blocks, nn.Conv2d(scales[-1].maps, layout.channels, 3, padding=1), layout.shown)


def _features(layout: Layout) -> tuple[nn.Sequential, int]:
    """Return the critic of our own generators up to its last layer, and how many features it gives."""
    maps = [scale.maps for scale in reversed(layout.scales)]
    layers = [nn.Conv2d(layout.channels, maps[0], 3, padding=1), nn.LeakyReLU(SLOPE)]
    for inputs, outputs in pairwise(maps):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.Flatten()), maps[-1] * layout.scales[0].size ** 2


def _transposed(layout: Layout) -> Synthesis:
    """Radford et al. 2016, figure 1, as laid out in PyTorch's DCGAN tutorial: 4, 8, 16, 32, 64 pixels."""
    maps = [layout.width * factor for factor in (8, 4, 2, 1)]
    first = nn.Sequential(
        nn.Unflatten(1, (layout.styles, 1, 1)),
        nn.ConvTranspose2d(layout.styles, maps[0], 4, bias=False),
        nn.BatchNorm2d(maps[0]),
        nn.ReLU(),
    )
    blocks: list[nn.Module] = [first]
    for inputs, outputs in pairwise(maps):
        enlarge = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        blocks.append(nn.Sequential(enlarge, nn.BatchNorm2d(outputs), nn.ReLU()))
    to_images = nn.ConvTranspose2d(maps[-1], layout.channels, 4, stride=2, padding=1, bias=False)
    return Synthesis(blocks, to_images, layout.shown)


_SYNTHESES: Mapping[Family, Callable[[Layout], Synthesis]] = {
    "upsampling": _upsampling,
    "styled": styled.synthesis,
    "transposed": _transposed,
    "ggl": ggl.synthesis,
    "gmi": gmi.synthesis,
    "biggan_deep_256": biggan.synthesis,
}

_CRITICS: Mapping[Family, Callable[[Layout], tuple[nn.Sequential, int]]] = {
    "ggl": ggl.critic_features,
    "gmi": gmi.critic_features,
}
"""Critics up to their last layer, of those that are not our own."""
