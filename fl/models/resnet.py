"""Residual networks for small images (He et al. 2016, arXiv 1512.03385, section 4.2)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fl.models.base import Classifier
from fl.models.catalog import CIFAR_RESNET_CHANNELS
from fl.models.initialise import kaiming_normal
from fl.specs import NoConfig
from fl.types import ImageSpec


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters (option A: subsample, pad with zeros)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self._stride = stride
        self._new_channels = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        shortcut = x
        if self._new_channels:
            before = self._new_channels // 2
            shortcut = F.pad(
                x[:, :, :: self._stride, :: self._stride],
                (0, 0, 0, 0, before, self._new_channels - before),
            )
        output: Tensor = self.relu2(residual + shortcut)
        return output


class _CifarResNet(Classifier):
    """A stem, three stages of basic blocks (16, 32, 64 channels), average pooling, linear head.

    Attributes:
        blocks_per_stage: n of the paper's depth 6n + 2.
    """

    blocks_per_stage: ClassVar[int]

    def __init__(self, config: NoConfig, image: ImageSpec, outputs: int) -> None:
        super().__init__()
        channels = CIFAR_RESNET_CHANNELS[0]
        self.conv = nn.Conv2d(image.channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for stage, width in enumerate(CIFAR_RESNET_CHANNELS, start=1):
            for number in range(1, self.blocks_per_stage + 1):
                stride = 2 if stage > 1 and number == 1 else 1
                blocks[f"stage{stage}_block{number}"] = _BasicBlock(channels, width, stride)
                channels = width
        self.body = nn.Sequential(blocks)
        self.head = nn.Linear(channels, outputs)

    def features(self, x: Tensor) -> Tensor:
        """Return the spatial mean of the last block's output."""
        hidden: Tensor = self.body(self.relu(self.norm(self.conv(x))))
        return hidden.mean(dim=(2, 3))

    @property
    def blocks(self) -> Mapping[str, nn.Module]:
        """The basic blocks."""
        return dict(self.body.named_children())

    @property
    def cam_layer(self) -> nn.Module:
        """The last block."""
        return self.body[-1]

    def initialise(self, generator: torch.Generator) -> None:
        """Draw convolutions from N(0, 2/fan_in), the head as PyTorch does; batch norm starts at identity."""
        super().initialise(generator)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_normal(module.weight, generator)


class ResNet20(_CifarResNet):
    """Three blocks per stage."""

    blocks_per_stage = 3


class ResNet32(_CifarResNet):
    """Five blocks per stage."""

    blocks_per_stage = 5
