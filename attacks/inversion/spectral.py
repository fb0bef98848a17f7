"""Layers divided by their largest singular value (Miyato et al. 2018, arXiv 1802.05957, algorithm 1).

Torch's own draw their first vector from the global generator; these draw it from a stream.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fl.models.initialise import kaiming_normal


class SpectralConv(nn.Conv2d):
    """A convolution with the weights divided by the largest singular value of their matrix, outputs x rest.

    Args:
        inputs: Feature maps that enter.
        outputs: Feature maps that leave.
        kernel: Side of the kernel, odd; edges are padded with zeros.
    """

    direction: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.register_buffer("direction", torch.ones(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """From `n x inputs x H x W` to `n x outputs x H x W`."""
        return F.conv2d(features, normalised(self), self.bias, padding=self.padding)


class SpectralLinear(nn.Linear):
    """A linear layer with the weights divided by their largest singular value.

    Args:
        inputs: Entries that enter.
        outputs: Entries that leave.
        bias: Whether it has one.
    """

    direction: Tensor

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.register_buffer("direction", torch.ones(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """From `n x inputs` to `n x outputs`."""
        return F.linear(features, normalised(self), self.bias)


def normalised(layer: SpectralConv | SpectralLinear) -> Tensor:
    """Return the weights over their largest singular value, as the layer knows it.

    In training mode the layer first takes one step of power iteration towards it. The singular vectors count
    as constants.
    """
    matrix = layer.weight.flatten(1)
    with torch.no_grad():
        right = F.normalize(matrix.T @ layer.direction, dim=0)
        if layer.training:
            layer.direction.copy_(F.normalize(matrix @ right, dim=0))
        left = layer.direction.clone()
    return layer.weight / (left @ matrix @ right)


def draw(module: nn.Module, stream: torch.Generator) -> None:
    """Draw such layers' weights from N(0, 2 / fan_in) and directions at random; biases are zero."""
    for layer in module.modules():
        if not isinstance(layer, SpectralConv | SpectralLinear):
            continue
        kaiming_normal(layer.weight, stream)
        layer.direction.copy_(F.normalize(torch.randn(len(layer.direction), generator=stream), dim=0))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
