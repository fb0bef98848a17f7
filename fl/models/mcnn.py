"""MCNN, the classifier of handwritten digits that FedInverse attacks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from fl.models.base import Classifier
from fl.models.catalog import MCNN_CHANNELS, mcnn_sides
from fl.specs import NoConfig
from fl.types import ImageSpec

_SLOPE = 0.2
"""Of the leaky ReLU."""


class MCNN(Classifier):
    """Three blocks of convolution, batch norm and leaky ReLU, and a linear head.

    The first two blocks (7x7 with padding 1, and 5x5) end with a 2x2 max-pool. The third convolution spans
    what is left, 5x5 for the published 32x32 images, so that there are 256 features for any image size. Its
    map of one pixel has batch statistics only in batches of two images or more.
    """

    def __init__(self, config: NoConfig, image: ImageSpec, outputs: int) -> None:
        super().__init__()
        first, second, third = MCNN_CHANNELS
        _, last_side = mcnn_sides(image.size)
        self.body = nn.Sequential(
            OrderedDict(
                block1=_block(nn.Conv2d(image.channels, first, 7, padding=1), pool=True),
                block2=_block(nn.Conv2d(first, second, 5), pool=True),
                block3=_block(nn.Conv2d(second, third, last_side), pool=False),
            )
        )
        self.head = nn.Linear(third, outputs)

    def features(self, x: Tensor) -> Tensor:
        """Return the last block's output, flattened."""
        hidden: Tensor = self.body(x)
        return hidden.flatten(1)

    @property
    def blocks(self) -> Mapping[str, nn.Module]:
        """The three blocks."""
        return dict(self.body.named_children())

    @property
    def cam_layer(self) -> nn.Module:
        """The second block's activation: the third has a single pixel."""
        return self.get_submodule("body.block2.act")


def _block(conv: nn.Conv2d, *, pool: bool) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=conv, norm=nn.BatchNorm2d(conv.out_channels), act=nn.LeakyReLU(_SLOPE)
    )
    if pool:
        layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)
