"""Cards of the built-in classifiers, read without torch; those with ImageNet weights: `imagenet_cards`."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from pydantic import Field

from fl.cards import DataInfo, ModelCard, ModelTraits, Reference
from fl.models.costs import after_stride, conv_mflop, linear_mflop
from fl.models.imagenet_cards import CARDS as IMAGENET_CARDS
from fl.registry import Registry
from fl.specs import Config, NoConfig, added_later

LENET_CHANNELS = 12
LENET_KERNEL = 5
LENET_STRIDES = (2, 2, 1, 1)
CONVNET_WIDTHS = (1, 2, 2, 4, 4, 4, 4, 4)
"""Channels of each convolution, in units of the configured width."""
CONVNET_POOL = 3
CONVNET_POOL_AFTER = (6, 8)
"""A max-pool follows these convolutions (counted from 1)."""
CIFAR_RESNET_CHANNELS = (16, 32, 64)
MCNN_CHANNELS = (64, 128, 256)


class LeNetConfig(Config):
    """Configuration of `lenet`."""

    convs: Literal[2, 3, 4] = Field(4, description="number of convolutions; the first two have stride 2")
    activation: Literal["sigmoid", "tanh", "relu"] = "sigmoid"
    init: Literal["uniform", "default"] = Field(
        "uniform", description="uniform: every weight and bias from U(-0.5, 0.5); default: PyTorch's"
    )


class ConvNetConfig(Config):
    """Configuration of `convnet`."""

    width: int = Field(64, ge=1, description="channels of the first convolution; later: 2 and 4 times")
    batch_norm: bool = Field(True, description="batch normalisation after every convolution")
    convs: int = added_later(
        8, ge=1, le=8, description="how many of the eight convolutions; max-pools follow the 6th and the 8th"
    )

    @property
    def pools(self) -> int:
        """Number of max-pools."""
        return sum(number <= self.convs for number in CONVNET_POOL_AFTER)


def lenet_features(config: LeNetConfig, size: int) -> int:
    """Return the number of inputs of the head."""
    for stride in LENET_STRIDES[: config.convs]:
        size = after_stride(size, stride)
    return LENET_CHANNELS * size * size


def convnet_features(config: ConvNetConfig, size: int) -> int:
    """Return the number of inputs of the head."""
    side = size
    for _ in range(config.pools):
        side //= CONVNET_POOL
    return CONVNET_WIDTHS[config.convs - 1] * config.width * side * side


def mcnn_sides(size: int) -> tuple[int, int]:
    """Return the sides of the maps that the second and the third convolution take.

    The third convolution spans its whole map, 5x5 for images of 32 px.
    """
    second = (size - 4) // 2
    return second, (second - 4) // 2


def _lenet_traits(config: LeNetConfig, data: DataInfo) -> ModelTraits:
    mflop, channels, side = 0.0, data.channels, data.size
    for stride in LENET_STRIDES[: config.convs]:
        side = after_stride(side, stride)
        mflop += conv_mflop(channels, LENET_CHANNELS, LENET_KERNEL, side)
        channels = LENET_CHANNELS
    return ModelTraits(
        batch_norm=False,
        head_bias=True,
        non_negative_features=config.activation != "tanh",
        convolution=True,
        twice_differentiable=config.activation != "relu",
        min_size=8,
        channels=None,
        mflop_per_image=mflop + linear_mflop(lenet_features(config, data.size), data.task.outputs),
    )


def _convnet_traits(config: ConvNetConfig, data: DataInfo) -> ModelTraits:
    mflop, channels, side = 0.0, data.channels, data.size
    for number, multiple in enumerate(CONVNET_WIDTHS[: config.convs], start=1):
        mflop += conv_mflop(channels, multiple * config.width, 3, side)
        channels = multiple * config.width
        if number in CONVNET_POOL_AFTER:
            side //= CONVNET_POOL
    return ModelTraits(
        batch_norm=config.batch_norm,
        head_bias=True,
        non_negative_features=True,
        convolution=True,
        twice_differentiable=False,
        min_size=9 if config.pools else 2,
        channels=None,
        mflop_per_image=mflop + linear_mflop(convnet_features(config, data.size), data.task.outputs),
    )


def _cifar_resnet_traits(blocks: int, config: NoConfig, data: DataInfo) -> ModelTraits:
    side = data.size
    mflop = conv_mflop(data.channels, CIFAR_RESNET_CHANNELS[0], 3, side)
    channels = CIFAR_RESNET_CHANNELS[0]
    for stage, width in enumerate(CIFAR_RESNET_CHANNELS):
        side = after_stride(side, 1 if stage == 0 else 2)
        rest = (2 * blocks - 1) * conv_mflop(width, width, 3, side)
        mflop += conv_mflop(channels, width, 3, side) + rest
        channels = width
    return ModelTraits(
        batch_norm=True,
        head_bias=True,
        non_negative_features=True,
        convolution=True,
        twice_differentiable=False,
        min_size=8,
        channels=None,
        mflop_per_image=mflop + linear_mflop(channels, data.task.outputs),
    )


def _mcnn_traits(config: NoConfig, data: DataInfo) -> ModelTraits:
    first, second, third = MCNN_CHANNELS
    middle, last = mcnn_sides(data.size)
    return ModelTraits(
        batch_norm=True,
        head_bias=True,
        non_negative_features=False,
        convolution=True,
        twice_differentiable=False,
        min_size=16,
        channels=None,
        mflop_per_image=conv_mflop(data.channels, first, 7, data.size - 4)
        + conv_mflop(first, second, 5, middle - 4)
        + conv_mflop(second, third, last, 1)
        + linear_mflop(third, data.task.outputs),
        min_train_batch=2,
    )


def _cards() -> tuple[ModelCard[Any], ...]:
    residual = Reference(
        text="K. He et al.: Deep Residual Learning for Image Recognition, CVPR 2016, "
        "arXiv 1512.03385, section 4.2"
    )
    return (
        ModelCard(
            name="lenet",
            version=1,
            summary="Sigmoid LeNet of the DLG experiments: 2 to 4 convolutions of 12 channels, linear head.",
            config=LeNetConfig,
            implementation="fl.models.lenet:LeNet",
            reference=Reference(
                text="L. Zhu, Z. Liu, S. Han: Deep Leakage from Gradients, NeurIPS 2019, arXiv 1906.08935"
            ),
            traits=_lenet_traits,
        ),
        ModelCard(
            name="convnet",
            version=1,
            summary="Eight 3x3 convolutions with ReLU, batch norm if wanted, two max-pools, linear head.",
            config=ConvNetConfig,
            implementation="fl.models.convnet:ConvNet",
            reference=Reference(
                text="J. Geiping et al.: Inverting Gradients - How easy is it to break privacy in federated "
                "learning?, NeurIPS 2020, arXiv 2003.14053 (its 8-layer ConvNet; width 64)"
            ),
            traits=_convnet_traits,
        ),
        ModelCard(
            name="resnet20",
            version=1,
            summary="The 20-layer residual network for small images, with parameter-free shortcuts.",
            config=NoConfig,
            implementation="fl.models.resnet:ResNet20",
            reference=residual,
            traits=partial(_cifar_resnet_traits, 3),
        ),
        ModelCard(
            name="resnet32",
            version=1,
            summary="The 32-layer residual network for small images, with parameter-free shortcuts.",
            config=NoConfig,
            implementation="fl.models.resnet:ResNet32",
            reference=residual,
            traits=partial(_cifar_resnet_traits, 5),
        ),
        ModelCard(
            name="mcnn",
            version=1,
            summary="Three wide convolutions with batch norm and leaky ReLU, the last over the whole map.",
            config=NoConfig,
            implementation="fl.models.mcnn:MCNN",
            reference=Reference(text="The MNIST target model of FedInverse (its code: models.py, MCNN)"),
            traits=_mcnn_traits,
        ),
        *IMAGENET_CARDS,
    )


MODELS: Registry[ModelCard[Any]] = Registry(
    "model", group="leakbench.models", card_type=ModelCard, builtin=_cards
)
"""All classifiers by name. The implementation of a card is called as `f(config, image, outputs)` with an
`fl.types.ImageSpec` and the number of logits, and returns an `fl.models.base.Classifier`."""
