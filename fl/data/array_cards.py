"""Cards of the data sets that torchvision downloads as whole arrays, read without torch or numpy."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from fl.cards import PARTS, DataCard, Reference
from fl.data.array_config import ArrayConfig
from fl.data.array_index import describe
from fl.data.array_sets import TEST_SHARES, TRAIN_SHARES, ArraySet
from fl.specs import Task

FASHION_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
EMNIST_CLASSES = MappingProxyType(
    {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}
)
PARTS_IN_WORDS = (
    "official training part: per class, in the order of a hash of each image's name, 70 % private, 15 % each "
    "public and evaluation; official test part: test"
)
_DOWNLOAD = "fl.data.array_download:fetch"


def _official(name: str, *, task: Task, channels: int, side: int, **rest: Any) -> ArraySet:
    return ArraySet(
        name=name,
        version=1,
        task=task,
        channels=channels,
        side=side,
        shares={"train": TRAIN_SHARES, "test": TEST_SHARES},
        get=f"run `bench data fetch {name}` where the internet can be reached",
        **rest,
    )


MNIST = _official(
    "mnist",
    task=Task("multiclass", 10),
    channels=1,
    side=28,
    files={
        "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    },
    folders=("MNIST/raw",),
    format="fl.data.idx:Idx",
    suffixes=("", ".gz"),
)
FASHION_MNIST = replace(
    MNIST,
    name="fashion_mnist",
    folders=("FashionMNIST/raw",),
    get="run `bench data fetch fashion_mnist` where the internet can be reached, or install Debian's package "
    "dataset-fashion-mnist",
    system_folder="/usr/share/datasets/fashion-mnist",
)
SVHN = _official(
    "svhn",
    task=Task("multiclass", 10),
    channels=3,
    side=32,
    files={"train": ("train_32x32.mat",), "test": ("test_32x32.mat",)},
    folders=("",),
    format="fl.data.svhn:Svhn",
)
CIFAR10 = _official(
    "cifar10",
    task=Task("multiclass", 10),
    channels=3,
    side=32,
    files={"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
    folders=("cifar-10-batches-py",),
    format="fl.data.cifar:Cifar",
)
CIFAR100 = _official(
    "cifar100",
    task=Task("multiclass", 100),
    channels=3,
    side=32,
    files={"train": ("train",), "test": ("test",)},
    folders=("cifar-100-python",),
    format="fl.data.cifar:Cifar",
)


def emnist(split: str) -> ArraySet:
    """Return the facts of one of EMNIST's splits."""
    return _official(
        "emnist",
        task=Task("multiclass", EMNIST_CLASSES[split]),
        channels=1,
        side=28,
        files={
            part: (f"emnist-{split}-{part}-images-idx3-ubyte", f"emnist-{split}-{part}-labels-idx1-ubyte")
            for part in ("train", "test")
        },
        folders=("EMNIST/raw",),
        format="fl.data.idx:Emnist",
        suffixes=("", ".gz"),
        first_label=1 if split == "letters" else 0,
    )


def _side(native: int) -> Any:
    return Field(
        native,
        ge=8,
        le=512,
        description=f"side in pixels; the originals are {native}x{native}, resized bilinearly",
    )


class MnistConfig(ArrayConfig):
    """Configuration of `mnist`."""

    classes: ClassVar[int | None] = 10
    size: int = _side(28)

    @property
    def facts(self) -> ArraySet:
        """What is fixed about the data set."""
        return MNIST


class FashionMnistConfig(MnistConfig):
    """Configuration of `fashion_mnist`."""

    @property
    def facts(self) -> ArraySet:
        """What is fixed about the data set."""
        return FASHION_MNIST


class EmnistConfig(ArrayConfig):
    """Configuration of `emnist`."""

    split: Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"] = Field(
        "balanced", description="62, 47, 47, 26, 10 and 10 classes; see docs/data.md"
    )
    size: int = _side(28)

    @property
    def facts(self) -> ArraySet:
        """What is fixed about the split."""
        return emnist(self.split)

    @model_validator(mode="after")
    def _labels_of_the_split(self) -> EmnistConfig:
        classes = EMNIST_CLASSES[self.split]
        for part in PARTS:
            outside = [label for label in self.labels(part) or () if label >= classes]
            if outside:
                raise ValueError(f"{part}_labels: expected labels of 0 to {classes - 1}, got {outside[0]}")
        return self


class SvhnConfig(ArrayConfig):
    """Configuration of `svhn`."""

    classes: ClassVar[int | None] = 10
    size: int = _side(32)

    @property
    def facts(self) -> ArraySet:
        """What is fixed about the data set."""
        return SVHN


class Cifar10Config(SvhnConfig):
    """Configuration of `cifar10`."""

    @property
    def facts(self) -> ArraySet:
        """What is fixed about the data set."""
        return CIFAR10


class Cifar100Config(SvhnConfig):
    """Configuration of `cifar100`."""

    classes: ClassVar[int | None] = 100

    @property
    def facts(self) -> ArraySet:
        """What is fixed about the data set."""
        return CIFAR100


def _card(name: str, config: type[ArrayConfig], **rest: Any) -> DataCard[Any]:
    return DataCard(
        name=name,
        version=1,
        config=config,
        implementation="fl.data.arrays:load",
        describe=describe,
        download=_DOWNLOAD,
        **rest,
    )


CARDS: tuple[DataCard[Any], ...] = (
    _card(
        "mnist",
        MnistConfig,
        summary="70,000 handwritten digits of 28x28 pixels, gray, 10 classes.",
        reference=Reference(
            "LeCun, Bottou, Bengio and Haffner, Gradient-based learning, Proc. IEEE 86(11), 1998"
        ),
        licence="CC BY-SA 3.0",
        parts=f"{PARTS_IN_WORDS} (other writers); writers are not named, so one writer's digits may be in "
        "several of the first three",
    ),
    _card(
        "fashion_mnist",
        FashionMnistConfig,
        summary="70,000 articles of clothing of 28x28 pixels, gray, 10 classes.",
        reference=Reference("Xiao, Rasul and Vollgraf, Fashion-MNIST, 2017 (arXiv 1708.07747)"),
        licence="MIT",
        parts=PARTS_IN_WORDS,
        class_names=FASHION_CLASSES,
    ),
    _card(
        "emnist",
        EmnistConfig,
        summary="Handwritten digits and letters of 28x28 pixels, gray, in six splits of 10 to 62 classes.",
        reference=Reference("Cohen, Afshar, Tapson and van Schaik, EMNIST, 2017 (arXiv 1702.05373)"),
        licence="none stated; made from NIST Special Database 19",
        parts=f"{PARTS_IN_WORDS}; writers are not named, so one writer's characters may be in several parts",
    ),
    _card(
        "svhn",
        SvhnConfig,
        summary="99,289 digits cropped from street-view photographs, 32x32 pixels, RGB, 10 classes.",
        reference=Reference(
            "Netzer, Wang, Coates, Bissacco, Wu and Ng, Reading Digits in Natural Images, NIPS Workshop on "
            "Deep Learning and Unsupervised Feature Learning, 2011"
        ),
        licence="non-commercial use only",
        parts=f"{PARTS_IN_WORDS}; digits of one house number may be in several of the first three parts",
    ),
    _card(
        "cifar10",
        Cifar10Config,
        summary="60,000 photographs of 32x32 pixels, RGB, 10 classes.",
        reference=Reference("Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"),
        licence="none stated; photographs from the web",
        parts=f"{PARTS_IN_WORDS}; some photographs have near copies in other parts (Barz and Denzler 2020)",
        class_names=CIFAR10_CLASSES,
    ),
    _card(
        "cifar100",
        Cifar100Config,
        summary="60,000 photographs of 32x32 pixels, RGB, 100 classes (the fine labels).",
        reference=Reference("Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"),
        licence="none stated; photographs from the web",
        parts=f"{PARTS_IN_WORDS}; some photographs have near copies in other parts (Barz and Denzler 2020)",
    ),
)
