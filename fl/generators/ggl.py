"""The generator and critic of 32x32 images that GGL's authors train as WGAN-GP.

Source: Li et al. 2022, Auditing Privacy Defenses in Federated Learning via Generative Gradient Leakage, arXiv
2203.15696, figure 11, and the authors' training notebook.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from fl.generators.layout import GGL_SIZE, Layout
from fl.generators.synthesis import Synthesis
from fl.models.initialise import normal
from fl.types import Tensors

SLOPE = 0.01
"""Of negative inputs in the critic."""

_SMALLEST = 4
_OURS = {
    "preprocess": "synthesis.blocks.0",
    "block1": "synthesis.blocks.1",
    "block2": "synthesis.blocks.2",
    "deconv_out": "synthesis.to_images",
}
"""What the authors' code calls modules, and what they are called here."""


def synthesis(layout: Layout) -> Synthesis:
    """Return the synthesis, with torch's weights."""
    maps = [scale.maps for scale in layout.scales]
    entries = maps[0] * _SMALLEST**2
    first = nn.Sequential(
        nn.Linear(layout.styles, entries),
        nn.BatchNorm1d(entries),
        nn.ReLU(),
        nn.Unflatten(1, (maps[0], _SMALLEST, _SMALLEST)),
    )
    blocks: list[nn.Module] = [first]
    for inputs, outputs in pairwise(maps):
        enlarge = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        blocks.append(nn.Sequential(enlarge, nn.BatchNorm2d(outputs), nn.ReLU()))
    to_images = nn.ConvTranspose2d(maps[-1], layout.channels, 2, stride=2)
    return Synthesis(blocks, to_images, layout.shown)


def critic_features(layout: Layout) -> tuple[nn.Sequential, int]:
    """Return the critic up to its last layer, with torch's weights, and how many features it gives."""
    maps = [scale.maps for scale in reversed(layout.scales)]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((layout.channels, *maps)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.Flatten()), maps[-1] * _SMALLEST**2


def initialise(module: nn.Module, stream: torch.Generator) -> None:
    """Draw the transposed convolutions' weights from N(0, 2 / maps), the last one's from N(0, 1 / maps).

    Kernels do not overlap, so that a pixel is a sum over the maps that enter.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.ConvTranspose2d):
            gain = 1 if name.endswith("to_images") else 2
            normal(layer.weight, stream, std=(gain / layer.in_channels) ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def renamed(weights: Tensors) -> tuple[Layout, dict[str, Tensor]]:
    """Return the layout of the weights of the authors' generator, and those under our names.

    Raises:
        LookupError: If the first or the last layer is missing.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        module, _, rest = name.partition(".")
        found[f"{_OURS.get(module, module)}.{rest}"] = tensor
    first, last = found["synthesis.blocks.0.0.weight"], found["synthesis.to_images.weight"]
    return Layout("ggl", last.shape[1], GGL_SIZE, first.shape[1], last.shape[0]), found
