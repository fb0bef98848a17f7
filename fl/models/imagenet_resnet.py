"""Residual networks with four stages (He et al. 2016, arXiv 1512.03385), from torchvision's parts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from fl.models.base import Classifier, out_of_place
from fl.models.imagenet_cards import RESNET18, RESNET50, STEM_CHANNELS, ResNetShape, StemConfig
from fl.models.initialise import kaiming_normal, pytorch_default
from fl.models.pretrained import load_weights, read_weights
from fl.types import ImageSpec


class _BasicBlock(resnet.BasicBlock):  # type: ignore[misc]  # torchvision is untyped
    """Two 3x3 convolutions beside a shortcut; adds out of place."""

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        output: Tensor = self.relu(residual + shortcut)
        return output


class _Bottleneck(resnet.Bottleneck):  # type: ignore[misc]  # torchvision is untyped
    """1x1, 3x3 (with the stride) and 1x1 convolutions beside a shortcut; adds out of place."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        shortcut = x if self.downsample is None else self.downsample(x)
        output: Tensor = self.relu(self.bn3(self.conv3(hidden)) + shortcut)
        return output


class _ResNet(Classifier):
    """A stem, four stages of blocks, average pooling and a linear head.

    Attributes:
        shape: Which blocks.
        pretrained: Name of the weights (`fl.models.imagenet.WEIGHTS`).
    """

    shape: ClassVar[ResNetShape]
    pretrained: ClassVar[str]

    def __init__(self, config: StemConfig, image: ImageSpec, outputs: int) -> None:
        super().__init__()
        self._weights = config.weights
        block = _Bottleneck if self.shape.bottleneck else _BasicBlock
        parts = resnet.ResNet(block, list(self.shape.blocks), num_classes=1)
        kernel, stride = (7, 2) if config.stem == "imagenet" else (3, 1)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1"] = nn.Conv2d(
            image.channels, STEM_CHANNELS, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        kept = ["bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
        for name in kept if config.stem == "imagenet" else [name for name in kept if name != "maxpool"]:
            layers[name] = parts.get_submodule(name)
        self.body = nn.Sequential(layers)
        self.head = nn.Linear(parts.fc.in_features, outputs)
        out_of_place(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the spatial mean of the last block's output."""
        hidden: Tensor = self.body(x)
        return hidden.mean(dim=(2, 3))

    @property
    def blocks(self) -> Mapping[str, nn.Module]:
        """The residual blocks."""
        return {
            f"layer{stage}_block{number}": block
            for stage in range(1, 5)
            for number, block in enumerate(self.body.get_submodule(f"layer{stage}").children(), start=1)
        }

    @property
    def cam_layer(self) -> nn.Module:
        """The last block."""
        return list(self.blocks.values())[-1]

    def initialise(self, generator: torch.Generator) -> None:
        """Draw convolutions from N(0, 2/fan_out), the head as PyTorch does; or take torchvision's weights.

        The head is drawn in any case; batch norm starts at identity if there are no weights.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_normal(module.weight, generator, fan="out")
            else:
                pytorch_default(module, generator)
        if self._weights != "none":
            load_weights(self, read_weights(self.pretrained), _renamed)


class ResNet18(_ResNet):
    """Two basic blocks per stage."""

    shape = RESNET18
    pretrained = "resnet18-imagenet"


class ResNet50(_ResNet):
    """3, 4, 6 and 3 bottlenecks, their stride in the 3x3 convolution as in torchvision."""

    shape = RESNET50
    pretrained = "resnet50-imagenet"


def _renamed(name: str) -> str | None:
    return None if name.startswith("fc.") else f"body.{name}"
