"""Cards of the classifiers that were made for ImageNet, read without torch."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from fl.cards import DataInfo, ModelCard, ModelTraits, Reference
from fl.models.costs import after_stride, conv_mflop, linear_mflop
from fl.models.imagenet import find
from fl.specs import Config

STEM_CHANNELS = 64
RESNET_WIDTHS = (64, 128, 256, 512)
BOTTLENECK = 4
"""Output channels of a bottleneck block, in units of its width."""
DENSE_LAYERS = (6, 12, 24, 16)
DENSE_GROWTH = 32
DENSE_BOTTLENECK = 4
"""Channels of a dense layer's 1x1 convolution, in units of the growth."""
VGG_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of each convolution, stage by stage; a 2x2 max-pool ends each stage."""
VGG_SMALLEST = 16
"""Side in pixels from which four pools leave something; below twice that a fifth has nothing to halve."""
VGG_PUBLISHED_HIDDEN = 4096
VGG_PUBLISHED_POOLED = 7


class ResNetShape(NamedTuple):
    """Number of blocks in each of the four stages, and which kind."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool


RESNET18 = ResNetShape((2, 2, 2, 2), bottleneck=False)
RESNET50 = ResNetShape((3, 4, 6, 3), bottleneck=True)

Stem = Literal["imagenet", "cifar"]


def _recorded(name: str) -> str:
    return "IMAGENET1K_V1" if name == "imagenet" else name


WeightsName = Annotated[Literal["none", "imagenet", "IMAGENET1K_V1"], AfterValidator(_recorded)]


class StemConfig(Config):
    """Configuration of `resnet18`, `resnet50` and `densenet121`."""

    stem: Stem = Field(
        "imagenet",
        description="imagenet: 7x7 convolution of stride 2 and max-pool; cifar: 3x3 of stride 1",
    )
    weights: WeightsName = Field(
        "none", description="imagenet: start from torchvision's IMAGENET1K_V1; the head is drawn anew"
    )

    @model_validator(mode="after")
    def _weights_have_the_imagenet_stem(self) -> Self:
        if self.weights != "none" and self.stem != "imagenet":
            raise ValueError(f"weights: {self.weights} needs stem: imagenet")
        return self


class VGG16Config(Config):
    """Configuration of `vgg16`."""

    batch_norm: bool = Field(False, description="batch normalisation after every convolution")
    pooled: int = Field(
        1, ge=1, le=VGG_PUBLISHED_POOLED, description="side of the averaged last map; 7 as published"
    )
    hidden: int = Field(
        0, ge=0, description="units of each of two linear layers before the head; 4096 as published, 0: none"
    )
    weights: WeightsName = Field(
        "none", description="imagenet: start from torchvision's IMAGENET1K_V1; the head is drawn anew"
    )

    @property
    def features(self) -> int:
        """Number of inputs of the first linear layer."""
        return VGG_WIDTHS[-1][-1] * self.pooled**2

    @model_validator(mode="after")
    def _weights_have_the_published_layers(self) -> Self:
        published = (self.pooled, self.hidden) == (VGG_PUBLISHED_POOLED, VGG_PUBLISHED_HIDDEN)
        if self.weights != "none" and self.hidden and not published:
            raise ValueError(
                f"weights: {self.weights} needs hidden: 0, or hidden: {VGG_PUBLISHED_HIDDEN} with pooled: "
                f"{VGG_PUBLISHED_POOLED}"
            )
        return self


def _after_stem(stem: Stem, size: int) -> int:
    return after_stride(after_stride(size, 2), 2) if stem == "imagenet" else size


def _stem_mflop(stem: Stem, data: DataInfo) -> float:
    if stem == "imagenet":
        return conv_mflop(data.channels, STEM_CHANNELS, 7, after_stride(data.size, 2))
    return conv_mflop(data.channels, STEM_CHANNELS, 3, data.size)


def _traits(config: StemConfig, *, smallest: int, last_side: int, mflop: float) -> ModelTraits:
    return ModelTraits(
        batch_norm=True,
        head_bias=True,
        non_negative_features=True,
        convolution=True,
        twice_differentiable=False,
        min_size=smallest if config.stem == "imagenet" else 8,
        channels=None if config.weights == "none" else (1, 3),
        mflop_per_image=mflop,
        min_train_batch=2 if last_side == 1 else 1,
    )


def _resnet_traits(shape: ResNetShape, config: StemConfig, data: DataInfo) -> ModelTraits:
    mflop, side, inputs = _stem_mflop(config.stem, data), _after_stem(config.stem, data.size), STEM_CHANNELS
    for stage, (width, blocks) in enumerate(zip(RESNET_WIDTHS, shape.blocks, strict=True)):
        outputs = width * BOTTLENECK if shape.bottleneck else width
        for block in range(blocks):
            before, side = side, after_stride(side, 2 if stage and not block else 1)
            if shape.bottleneck:
                mflop += conv_mflop(inputs, width, 1, before) + conv_mflop(width, width, 3, side)
                mflop += conv_mflop(width, outputs, 1, side)
            else:
                mflop += conv_mflop(inputs, width, 3, side) + conv_mflop(width, width, 3, side)
            if side != before or inputs != outputs:
                mflop += conv_mflop(inputs, outputs, 1, side)
            inputs = outputs
    mflop += linear_mflop(inputs, data.task.outputs)
    return _traits(config, smallest=16, last_side=side, mflop=mflop)


def _densenet_traits(config: StemConfig, data: DataInfo) -> ModelTraits:
    mflop, side, channels = _stem_mflop(config.stem, data), _after_stem(config.stem, data.size), STEM_CHANNELS
    between = DENSE_BOTTLENECK * DENSE_GROWTH
    for number, layers in enumerate(DENSE_LAYERS, start=1):
        for _ in range(layers):
            mflop += conv_mflop(channels, between, 1, side) + conv_mflop(between, DENSE_GROWTH, 3, side)
            channels += DENSE_GROWTH
        if number < len(DENSE_LAYERS):
            mflop += conv_mflop(channels, channels // 2, 1, side)
            channels, side = channels // 2, side // 2
    mflop += linear_mflop(channels, data.task.outputs)
    return _traits(config, smallest=32, last_side=side, mflop=mflop)


def _vgg16_traits(config: VGG16Config, data: DataInfo) -> ModelTraits:
    mflop, channels = 0.0, data.channels
    for number, stage in enumerate(VGG_WIDTHS):
        for width in stage:
            mflop += conv_mflop(channels, width, 3, data.size // 2**number)
            channels = width
    last_side = data.size // 2 ** (len(VGG_WIDTHS) - 1)
    features = config.features
    if config.hidden:
        mflop += linear_mflop(features, config.hidden) + linear_mflop(config.hidden, config.hidden)
        features = config.hidden
    return ModelTraits(
        batch_norm=config.batch_norm,
        head_bias=True,
        non_negative_features=True,
        convolution=True,
        twice_differentiable=False,
        min_size=VGG_SMALLEST,
        channels=None if config.weights == "none" else (1, 3),
        mflop_per_image=mflop + linear_mflop(features, data.task.outputs),
        min_train_batch=2 if config.batch_norm and last_side == 1 else 1,
    )


def _require(name: str, config: StemConfig) -> None:
    if config.weights != "none":
        find(name)


def _require_vgg16(config: VGG16Config) -> None:
    if config.weights != "none":
        name = "vgg16_bn-imagenet" if config.batch_norm else "vgg16-imagenet"
        find(name, convolutions=not config.hidden)


_RESIDUAL = Reference(
    text="K. He et al.: Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385, table 1"
)

CARDS: tuple[ModelCard[Any], ...] = (
    ModelCard(
        name="resnet18",
        version=1,
        summary="The 18-layer residual network, with torchvision's weights if wanted.",
        config=StemConfig,
        implementation="fl.models.imagenet_resnet:ResNet18",
        reference=_RESIDUAL,
        traits=partial(_resnet_traits, RESNET18),
        require=partial(_require, "resnet18-imagenet"),
    ),
    ModelCard(
        name="resnet50",
        version=1,
        summary="The 50-layer residual network of bottlenecks, with torchvision's weights if wanted.",
        config=StemConfig,
        implementation="fl.models.imagenet_resnet:ResNet50",
        reference=_RESIDUAL,
        traits=partial(_resnet_traits, RESNET50),
        require=partial(_require, "resnet50-imagenet"),
    ),
    ModelCard(
        name="densenet121",
        version=1,
        summary="The 121-layer densely connected network, with torchvision's weights if wanted.",
        config=StemConfig,
        implementation="fl.models.densenet:DenseNet121",
        reference=Reference(
            text="G. Huang et al.: Densely Connected Convolutional Networks, CVPR 2017, arXiv 1608.06993"
        ),
        traits=_densenet_traits,
        require=partial(_require, "densenet121-imagenet"),
    ),
    ModelCard(
        name="vgg16",
        version=1,
        summary="13 convolutions in five pooled stages; batch norm and hidden linear layers if wanted.",
        config=VGG16Config,
        implementation="fl.models.vgg:VGG16",
        reference=Reference(
            text="K. Simonyan, A. Zisserman: Very Deep Convolutional Networks for Large-Scale Image "
            "Recognition, ICLR 2015, arXiv 1409.1556, configuration D"
        ),
        traits=_vgg16_traits,
        require=_require_vgg16,
    ),
)
