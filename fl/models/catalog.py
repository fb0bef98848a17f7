"""Cards of the built-in classifiers, read without torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fl.cards import DataInfo, ModelCard, ModelTraits, Reference
from fl.registry import Registry
from fl.specs import Config

LENET_CHANNELS = 12
LENET_KERNEL = 5
LENET_STRIDES = (2, 2, 1, 1)
CONVNET_WIDTHS = (1, 2, 2, 4, 4, 4, 4, 4)
"""Channels of each convolution, in units of the configured width."""
CONVNET_POOL = 3
CONVNET_POOL_AFTER = (6, 8)
"""A max-pool follows these convolutions (counted from 1)."""
RESNET_CHANNELS = (16, 32, 64)


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


class ResNet20Config(Config):
    """Configuration of `resnet20`: nothing to choose."""


def after_stride(size: int, stride: int) -> int:
    """Return the side of a 'same'-padded convolution's output."""
    return -(-size // stride)


def lenet_features(config: LeNetConfig, size: int) -> int:
    """Return the number of inputs of the head."""
    for stride in LENET_STRIDES[: config.convs]:
        size = after_stride(size, stride)
    return LENET_CHANNELS * size * size


def convnet_features(config: ConvNetConfig, size: int) -> int:
    """Return the number of inputs of the head."""
    side = size
    for _ in CONVNET_POOL_AFTER:
        side //= CONVNET_POOL
    return CONVNET_WIDTHS[-1] * config.width * side * side


def _conv_mflop(inputs: int, outputs: int, kernel: int, side: int) -> float:
    return 2e-6 * inputs * outputs * kernel**2 * side**2


def _lenet_traits(config: LeNetConfig, data: DataInfo) -> ModelTraits:
    mflop, channels, side = 0.0, data.channels, data.size
    for stride in LENET_STRIDES[: config.convs]:
        side = after_stride(side, stride)
        mflop += _conv_mflop(channels, LENET_CHANNELS, LENET_KERNEL, side)
        channels = LENET_CHANNELS
    return ModelTraits(
        batch_norm=False,
        head_bias=True,
        non_negative_features=config.activation != "tanh",
        convolution=True,
        twice_differentiable=config.activation != "relu",
        min_size=8,
        channels=None,
        mflop_per_image=mflop + 2e-6 * lenet_features(config, data.size) * data.task.outputs,
    )


def _convnet_traits(config: ConvNetConfig, data: DataInfo) -> ModelTraits:
    mflop, channels, side = 0.0, data.channels, data.size
    for number, multiple in enumerate(CONVNET_WIDTHS, start=1):
        mflop += _conv_mflop(channels, multiple * config.width, 3, side)
        channels = multiple * config.width
        if number in CONVNET_POOL_AFTER:
            side //= CONVNET_POOL
    return ModelTraits(
        batch_norm=config.batch_norm,
        head_bias=True,
        non_negative_features=True,
        convolution=True,
        twice_differentiable=False,
        min_size=9,
        channels=None,
        mflop_per_image=mflop + 2e-6 * convnet_features(config, data.size) * data.task.outputs,
    )


def _resnet20_traits(config: ResNet20Config, data: DataInfo) -> ModelTraits:
    side = data.size
    mflop = _conv_mflop(data.channels, RESNET_CHANNELS[0], 3, side)
    channels = RESNET_CHANNELS[0]
    for stage, width in enumerate(RESNET_CHANNELS):
        side = after_stride(side, 1 if stage == 0 else 2)
        mflop += _conv_mflop(channels, width, 3, side) + 5 * _conv_mflop(width, width, 3, side)
        channels = width
    return ModelTraits(
        batch_norm=True,
        head_bias=True,
        non_negative_features=True,
        convolution=True,
        twice_differentiable=False,
        min_size=8,
        channels=None,
        mflop_per_image=mflop + 2e-6 * channels * data.task.outputs,
    )


def _cards() -> tuple[ModelCard[Any], ...]:
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
            config=ResNet20Config,
            implementation="fl.models.resnet:ResNet20",
            reference=Reference(
                text="K. He et al.: Deep Residual Learning for Image Recognition, CVPR 2016, "
                "arXiv 1512.03385, section 4.2"
            ),
            traits=_resnet20_traits,
        ),
    )


MODELS: Registry[ModelCard[Any]] = Registry(
    "model", group="leakbench.models", card_type=ModelCard, builtin=_cards
)
"""All classifiers by name. The implementation of a card is called as `f(config, image, outputs)` with an
`fl.types.ImageSpec` and the number of logits, and returns an `fl.models.base.Classifier`."""
