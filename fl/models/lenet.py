"""The LeNet of gradient-inversion experiments (Zhu et al. 2019, arXiv 1906.08935)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fl.models.base import Classifier
from fl.models.catalog import LENET_CHANNELS, LENET_KERNEL, LENET_STRIDES, LeNetConfig, lenet_features
from fl.models.initialise import uniform
from fl.types import ImageSpec

_ACTIVATIONS: Mapping[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}


class LeNet(Classifier):
    """2 to 4 convolutions of 12 channels, 5x5, stride instead of pooling, and a linear head.

    With sigmoid activations it is twice differentiable; with all weights and biases from U(-0.5, 0.5)
    gradient matching converges, which it does not from PyTorch's default initialisation.
    """

    def __init__(self, config: LeNetConfig, image: ImageSpec, outputs: int) -> None:
        super().__init__()
        self._init = config.init
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = image.channels
        for number, stride in enumerate(LENET_STRIDES[: config.convs], start=1):
            layers[f"conv{number}"] = nn.Conv2d(
                channels, LENET_CHANNELS, LENET_KERNEL, stride=stride, padding=LENET_KERNEL // 2
            )
            layers[f"act{number}"] = _ACTIVATIONS[config.activation]()
            channels = LENET_CHANNELS
        self.body = nn.Sequential(layers)
        self.head = nn.Linear(lenet_features(config, image.size), outputs)

    def features(self, x: Tensor) -> Tensor:
        """Return the last activation, flattened."""
        hidden: Tensor = self.body(x)
        return hidden.flatten(1)

    @property
    def blocks(self) -> Mapping[str, nn.Module]:
        """The activations."""
        return {name: layer for name, layer in self.body.named_children() if name.startswith("act")}

    @property
    def cam_layer(self) -> nn.Module:
        """The last activation."""
        return self.body[-1]

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights and biases from U(-0.5, 0.5), or as PyTorch does."""
        if self._init == "uniform":
            uniform(self, generator, bound=0.5)
        else:
            super().initialise(generator)
