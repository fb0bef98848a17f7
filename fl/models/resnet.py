"""ResNet-20 for small images (He et al. 2016, arXiv 1512.03385, section 4.2)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fl.models.base import Classifier
from fl.models.catalog import RESNET_CHANNELS, ResNet20Config
from fl.models.initialise import kaiming_normal
from fl.types import ImageSpec


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters (option A: subsample, pad with zeros)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self._stride = stride
        self._new_channels = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        shortcut = x
        if self._new_channels:
            before = self._new_channels // 2
            shortcut = F.pad(
                x[:, :, :: self._stride, :: self._stride],
                (0, 0, 0, 0, before, self._new_channels - before),
            )
        return F.relu(residual + shortcut)


class ResNet20(Classifier):
    """A stem, three stages of three basic blocks (16, 32, 64 channels), average pooling, linear head."""

    def __init__(self, config: ResNet20Config, image: ImageSpec, outputs: int) -> None:
        super().__init__()
        channels = RESNET_CHANNELS[0]
        self.conv = nn.Conv2d(image.channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for stage, width in enumerate(RESNET_CHANNELS, start=1):
            for number in range(1, 4):
                stride = 2 if stage > 1 and number == 1 else 1
                blocks[f"stage{stage}_block{number}"] = _BasicBlock(channels, width, stride)
                channels = width
        self.body = nn.Sequential(blocks)
        self.head = nn.Linear(channels, outputs)

    def features(self, x: Tensor) -> Tensor:
        """Return the spatial mean of the last block's output."""
        hidden: Tensor = self.body(F.relu(self.norm(self.conv(x))))
        return hidden.mean(dim=(2, 3))

    @property
    def blocks(self) -> Mapping[str, nn.Module]:
        """The nine basic blocks."""
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
