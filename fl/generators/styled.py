"""A style-based generator: a style vector of its own for each layer, and no noise.

Sources: Karras, Laine and Aila 2019, A Style-Based Generator Architecture for Generative Adversarial
Networks, arXiv 1812.04948 (mapping network, learned constant, mixed styles); Karras et al. 2020, Analyzing
and Improving the Image Quality of StyleGAN, arXiv 1912.04958 (modulated convolutions). One layer per side
length, where theirs have two, and images are made from the last maps alone.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fl.generators.layout import Layout, Scale
from fl.generators.synthesis import Synthesis

SLOPE, GAIN = 0.2, 2**0.5
"""Of negative inputs, and what the activations are multiplied by to keep their size."""

EPSILON = 1e-8

MIXING = 0.9
"""Share of the images trained on that are drawn from two latent vectors (Karras et al. 2019, appendix C)."""


class Constant(nn.Module):
    """The learned maps that every image begins with.

    Args:
        scale: Their side and number.
    """

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.ones(scale.maps, scale.size, scale.size))

    def forward(self, images: int) -> Tensor:
        """Return them for so many images, `n x maps x size x size`."""
        return self.maps.expand(images, -1, -1, -1)


class ModulatedConvolution(nn.Module):
    """A convolution whose weights are scaled per image: equations 1 and 3 of Karras et al. 2020.

    For scales s of the input maps, w'_jik = s_i w_jik, then divided by sqrt(sum over i, k of w'_jik^2).
    Inputs and outputs are scaled instead of weights, which is the same.

    Args:
        styles: Entries of a style vector.
        inputs: Feature maps that enter.
        maps: Feature maps that leave.
    """

    def __init__(self, styles: int, inputs: int, maps: int) -> None:
        super().__init__()
        self.scale = nn.Linear(styles, inputs)
        self.conv = nn.Conv2d(inputs, maps, 3, padding=1)

    def forward(self, features: Tensor, styles: Tensor) -> Tensor:
        """From `n x inputs x H x W` and `n x styles` to `n x maps x H x W`."""
        weight, bias = self.conv.weight, self.conv.bias
        assert bias is not None
        scales: Tensor = 1 + self.scale(styles)
        lengths = scales.square() @ weight.square().sum((2, 3)).T + EPSILON
        found = F.conv2d(features * scales[..., None, None], weight, padding=1)
        return found * lengths.rsqrt()[..., None, None] + bias[:, None, None]


class Layer(nn.Module):
    """Doubles the maps' sides (nearest, cut to size), but for the first, and convolves as its style says.

    Args:
        number: Which of the style vectors is its own, from 0; layer 0 begins with the constant.
        styles: Entries of a style vector.
        inputs: Feature maps that enter.
        scale: Side and number of the maps that leave.
    """

    def __init__(self, number: int, styles: int, inputs: int, scale: Scale) -> None:
        super().__init__()
        self.constant = None if number else Constant(scale)
        self.convolution = ModulatedConvolution(styles, inputs, scale.maps)
        self._number = number
        self._size = scale.size

    def forward(self, features: Tensor, styles: Tensor) -> Tensor:
        """From the last layer's maps and styles, `n x styles` or `n x layers x styles`, to its own maps."""
        own = styles if styles.ndim == 2 else styles[:, self._number]
        entering = self._doubled(features) if self.constant is None else self.constant(len(own))
        return F.leaky_relu(self.convolution(entering, own), SLOPE) * GAIN

    def _doubled(self, features: Tensor) -> Tensor:
        doubled = F.interpolate(features, scale_factor=2.0, mode="nearest")
        return doubled[..., : self._size, : self._size]


def synthesis(layout: Layout) -> Synthesis:
    """Return the synthesis, with torch's weights."""
    scales = layout.scales
    layers: list[nn.Module] = [Layer(0, layout.styles, scales[0].maps, scales[0])]
    for number, (last, scale) in enumerate(pairwise(scales), start=1):
        layers.append(Layer(number, layout.styles, last.maps, scale))
    to_images = nn.Conv2d(scales[-1].maps, layout.channels, 3, padding=1)
    return Synthesis(layers, to_images, layout.shown, styled=True)


def mixed(first: Tensor, second: Tensor, layers: int, stream: torch.Generator) -> Tensor:
    """Return styles per layer, most images' first layers from one vector and the others from another.

    Layers that have been trained so do not rely on one another's styles (Karras et al. 2019, section 3.1).

    Args:
        first: `n x styles`.
        second: `n x styles`.
        layers: Of the generator, at least 2.
        stream: Draws which images are mixed, and where one vector gives way to the other.

    Returns:
        `n x layers x styles`.
    """
    number = len(first)
    crossing = torch.randint(1, layers, (number,), generator=stream)
    whole = torch.rand(number, generator=stream) >= MIXING
    crossing[whole] = layers
    ours = (torch.arange(layers) < crossing[:, None]).to(first.device)
    return torch.where(ours[..., None], first[:, None], second[:, None])
