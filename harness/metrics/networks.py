"""The networks behind LPIPS: how their convolutions follow each other, and where their weights are found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Layer(NamedTuple):
    """One convolution, followed by a ReLU.

    Attributes:
        shape: Its weights, `outputs x inputs x h x w`.
        stride: Stride.
        padding: Zeros around its input.
        pool: Side of the max-pooling before it, of stride 2; None for none.
        compared: Whether LPIPS compares what follows its ReLU.
    """

    shape: tuple[int, int, int, int]
    stride: int = 1
    padding: int = 1
    pool: int | None = None
    compared: bool = True


@dataclass(frozen=True)
class Network:
    """A network whose features LPIPS compares.

    Attributes:
        name: For people.
        layers: Its convolutions up to the last that LPIPS compares.
        asset: The packaged weights (`fl.data.assets`).
        group: Their name inside the asset.
        variable: The environment variable that names another file.
        torchvision_file: Torchvision's own download.
        torchvision_layers: Positions of the convolutions in torchvision's `features`.
        heads: File of the linear heads in the `lpips` package.
        check_distance: LPIPS of a horizontal and a vertical ramp (64 x 64 pixels) with the right weights.
    """

    name: str
    layers: tuple[Layer, ...]
    asset: str
    group: str
    variable: str
    torchvision_file: str
    torchvision_layers: tuple[int, ...]
    heads: str
    check_distance: float

    @property
    def shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """Shapes of the convolutions' weights."""
        return tuple(layer.shape for layer in self.layers)

    @property
    def compared_channels(self) -> tuple[int, ...]:
        """Channels of what is compared, one number per head."""
        return tuple(layer.shape[0] for layer in self.layers if layer.compared)


ALEXNET = Network(
    name="AlexNet",
    layers=(
        Layer((64, 3, 11, 11), stride=4, padding=2),
        Layer((192, 64, 5, 5), padding=2, pool=3),
        Layer((384, 192, 3, 3), pool=3),
        Layer((256, 384, 3, 3)),
        Layer((256, 256, 3, 3)),
    ),
    asset="lpips-alexnet",
    group="AlexNet_0",
    variable="LEAKBENCH_LPIPS_WEIGHTS",
    torchvision_file="alexnet-owt-7be5be79.pth",
    torchvision_layers=(0, 3, 6, 8, 10),
    heads="alex.pth",
    check_distance=0.51094,
)
VGG16 = Network(
    name="VGG-16",
    layers=(
        Layer((64, 3, 3, 3), compared=False),
        Layer((64, 64, 3, 3)),
        Layer((128, 64, 3, 3), pool=2, compared=False),
        Layer((128, 128, 3, 3)),
        Layer((256, 128, 3, 3), pool=2, compared=False),
        Layer((256, 256, 3, 3), compared=False),
        Layer((256, 256, 3, 3)),
        Layer((512, 256, 3, 3), pool=2, compared=False),
        Layer((512, 512, 3, 3), compared=False),
        Layer((512, 512, 3, 3)),
        Layer((512, 512, 3, 3), pool=2, compared=False),
        Layer((512, 512, 3, 3), compared=False),
        Layer((512, 512, 3, 3)),
    ),
    asset="lpips-vgg16",
    group="VGG16_0",
    variable="LEAKBENCH_LPIPS_VGG_WEIGHTS",
    torchvision_file="vgg16-397923af.pth",
    torchvision_layers=(0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    heads="vgg.pth",
    check_distance=0.51703,
)
