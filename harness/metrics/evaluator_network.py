"""The network of an evaluator: a small convolutional classifier for images of any size and any classes."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from fl.models.initialise import kaiming_normal
from harness.metrics.evaluator_costs import FEATURES, FIRST_KERNEL, KERNEL, maps_for

SLOPE = 0.1
"""Of the rectifiers below zero."""


class EvaluatorNetwork(nn.Module):
    """A 5 x 5 convolution, pairs of 3 x 3 ones, each followed by pooling, and two linear layers."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        """Take the images' channels and side in pixels, and the number of classes."""
        super().__init__()
        maps = maps_for(size)
        stride = 1 if maps[0].side == size else 2
        blocks: list[nn.Module] = [_block(channels, maps[0].width, kernel=FIRST_KERNEL, stride=stride)]
        for last, pooled in pairwise(maps):
            blocks += [_block(last.width, pooled.width), _block(pooled.width, pooled.width), nn.MaxPool2d(2)]
        self.maps = nn.Sequential(*blocks)
        self.bottleneck = nn.Sequential(
            nn.Flatten(),
            nn.Linear(maps[-1].width * maps[-1].side ** 2, FEATURES, bias=False),
            nn.BatchNorm1d(FEATURES),
            nn.LeakyReLU(SLOPE),
        )
        self.head = nn.Linear(FEATURES, classes)

    def features(self, images: Tensor) -> Tensor:
        """Return `n x FEATURES` for `n x C x H x W` in [0, 1]."""
        found: Tensor = self.bottleneck(self.maps(2 * images - 1))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, `n x classes`, for `n x C x H x W` in [0, 1]."""
        found: Tensor = self.head(self.features(images))
        return found


def initialise(network: EvaluatorNetwork, stream: torch.Generator) -> None:
    """Draw all weights from N(0, 2 / fan_in); biases are zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            kaiming_normal(layer.weight, stream)
    nn.init.zeros_(network.head.bias)


def _block(inputs: int, outputs: int, *, kernel: int = KERNEL, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(SLOPE),
    )
