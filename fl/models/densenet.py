"""DenseNet-121 (Huang et al. 2017, arXiv 1608.06993), from torchvision's parts."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models import DenseNet

from fl.models.base import Classifier, out_of_place
from fl.models.imagenet_cards import (
    DENSE_BOTTLENECK,
    DENSE_GROWTH,
    DENSE_LAYERS,
    STEM_CHANNELS,
    StemConfig,
)
from fl.models.initialise import kaiming_normal, pytorch_default
from fl.models.pretrained import load_weights, read_weights
from fl.types import ImageSpec


class DenseNet121(Classifier):
    """A stem, four dense blocks with transitions between them, average pooling and a linear head."""

    def __init__(self, config: StemConfig, image: ImageSpec, outputs: int) -> None:
        super().__init__()
        self._weights = config.weights
        parts = DenseNet(
            growth_rate=DENSE_GROWTH,
            block_config=DENSE_LAYERS,
            num_init_features=STEM_CHANNELS,
            bn_size=DENSE_BOTTLENECK,
            num_classes=1,
        )
        kernel, stride = (7, 2) if config.stem == "imagenet" else (3, 1)
        self.body: nn.Sequential = parts.features
        self.body.conv0 = nn.Conv2d(
            image.channels, STEM_CHANNELS, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        if config.stem == "cifar":
            del self.body.pool0
        self.body.add_module("relu5", nn.ReLU())
        self.head = nn.Linear(parts.classifier.in_features, outputs)
        out_of_place(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the spatial mean of the last activation."""
        hidden: Tensor = self.body(x)
        return hidden.mean(dim=(2, 3))

    @property
    def blocks(self) -> Mapping[str, nn.Module]:
        """The dense blocks, each of which gives its input and all that it adds."""
        return {name: layer for name, layer in self.body.named_children() if name.startswith("denseblock")}

    @property
    def cam_layer(self) -> nn.Module:
        """The last activation."""
        return self.body[-1]

    def initialise(self, generator: torch.Generator) -> None:
        """Draw convolutions from N(0, 2/fan_in), the head as PyTorch does, or take torchvision's weights.

        The head is drawn in any case, its bias zero as in torchvision.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_normal(module.weight, generator)
            else:
                pytorch_default(module, generator)
        nn.init.zeros_(self.head.bias)
        if self._weights != "none":
            load_weights(self, read_weights("densenet121-imagenet"), _renamed)


def _renamed(name: str) -> str | None:
    """Return the name here of a tensor in torchvision's file, which writes `norm.1` for `norm1`."""
    if name.startswith("classifier."):
        return None
    name = name.replace("features.", "body.", 1)
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)
