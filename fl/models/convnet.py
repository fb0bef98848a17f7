"""The ConvNet of Inverting Gradients (Geiping et al. 2020, arXiv 2003.14053)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fl.models.base import Classifier
from fl.models.catalog import (
    CONVNET_POOL,
    CONVNET_POOL_AFTER,
    CONVNET_WIDTHS,
    ConvNetConfig,
    convnet_features,
)
from fl.models.initialise import kaiming_normal
from fl.types import ImageSpec


class ConvNet(Classifier):
    """Eight 3x3 convolutions, each with batch norm (if wanted) and ReLU; two 3x3 max-pools; linear head.

    Or the first few of them: up to five are not pooled, so that the head sees features at every pixel.
    """

    def __init__(self, config: ConvNetConfig, image: ImageSpec, outputs: int) -> None:
        super().__init__()
        self._batch_norm = config.batch_norm
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = image.channels
        for number, multiple in enumerate(CONVNET_WIDTHS[: config.convs], start=1):
            width = multiple * config.width
            layers[f"conv{number}"] = nn.Conv2d(channels, width, 3, padding=1)
            if config.batch_norm:
                layers[f"norm{number}"] = nn.BatchNorm2d(width)
            layers[f"relu{number}"] = nn.ReLU()
            if number in CONVNET_POOL_AFTER:
                layers[f"pool{number}"] = nn.MaxPool2d(CONVNET_POOL)
            channels = width
        self.body = nn.Sequential(layers)
        self.head = nn.Linear(convnet_features(config, image.size), outputs)

    def features(self, x: Tensor) -> Tensor:
        """Return the last layer's output, flattened."""
        hidden: Tensor = self.body(x)
        return hidden.flatten(1)

    @property
    def blocks(self) -> Mapping[str, nn.Module]:
        """The activations."""
        return {name: layer for name, layer in self.body.named_children() if name.startswith("relu")}

    @property
    def cam_layer(self) -> nn.Module:
        """The last activation, before the max-pool that may follow."""
        return list(self.blocks.values())[-1]

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights as PyTorch does; without batch norm, convolutions from N(0, 2/fan_in).

        Unnormalised, PyTorch's default shrinks the signal at each layer, and after eight training does not
        start.
        """
        super().initialise(generator)
        if not self._batch_norm:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    kaiming_normal(module.weight, generator)
