"""The network of an evaluator: a small convolutional classifier for images of any size and any classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fl.models.initialise import kaiming_normal

SMALL_SIDE, SMALLEST_MAP = 16, 4
"""Images with a larger side are halved by the first convolution; maps are halved down to four pixels."""

WIDTH, LARGE_WIDTH, MOST_WIDTH = 16, 24, 256
"""Feature maps after the first convolution, of small and of larger images; they double with each pooling."""

FEATURES = 64
"""Entries of the features, which enter the last layer."""

SLOPE = 0.1
"""Of the rectifiers below zero."""


class EvaluatorNetwork(nn.Module):
    """Pairs of 3 x 3 convolutions with batch norm and pooling between them, then two linear layers."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        """Take the images' channels and side in pixels, and the number of classes."""
        super().__init__()
        stride, width = (2, LARGE_WIDTH) if size > SMALL_SIDE else (1, WIDTH)
        side = -(-size // stride)
        blocks: list[nn.Module] = [_block(channels, width, kernel=5, stride=stride)]
        while side > SMALLEST_MAP:
            wider = min(2 * width, MOST_WIDTH)
            blocks += [_block(width, wider), _block(wider, wider), nn.MaxPool2d(2)]
            side, width = side // 2, wider
        self.maps = nn.Sequential(*blocks)
        self.bottleneck = nn.Sequential(
            nn.Flatten(),
            nn.Linear(width * side**2, FEATURES, bias=False),
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


def _block(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(SLOPE),
    )
