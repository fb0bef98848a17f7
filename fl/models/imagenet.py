"""Torchvision's ImageNet weights: their names, files and where they lie, known without torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from fl.data import assets
from fl.errors import DataUnavailableError


@dataclass(frozen=True)
class ImageNetWeights:
    """One of torchvision's weight files.

    Attributes:
        name: The name used by `bench weights fetch`.
        enum: Torchvision's name, which knows the address.
        file: Its file name; the digits before the suffix begin its sha256.
        mib: Its size in MiB.
        convolutions: Name of the packaged asset that holds its convolutions alone, or "".
    """

    name: str
    enum: str
    file: str
    mib: float
    convolutions: str = ""

    @property
    def digits(self) -> str:
        """The first digits of the file's sha256."""
        return self.file.rpartition(".")[0].rpartition("-")[2]

    @property
    def command(self) -> str:
        """The command that fetches it."""
        return f"bench weights fetch {self.name}"

    @property
    def path(self) -> Path:
        """Where torchvision keeps it."""
        return hub_checkpoints() / self.file


_ALL = (
    ImageNetWeights("resnet18-imagenet", "ResNet18_Weights.IMAGENET1K_V1", "resnet18-f37072fd.pth", 44.661),
    ImageNetWeights("resnet50-imagenet", "ResNet50_Weights.IMAGENET1K_V1", "resnet50-0676ba61.pth", 97.781),
    ImageNetWeights(
        "densenet121-imagenet", "DenseNet121_Weights.IMAGENET1K_V1", "densenet121-a639ec97.pth", 30.845
    ),
    ImageNetWeights(
        "vgg16-imagenet", "VGG16_Weights.IMAGENET1K_V1", "vgg16-397923af.pth", 527.796, "lpips-vgg16"
    ),
    ImageNetWeights("vgg16_bn-imagenet", "VGG16_BN_Weights.IMAGENET1K_V1", "vgg16_bn-6c64b313.pth", 527.866),
)

WEIGHTS: Mapping[str, ImageNetWeights] = MappingProxyType({weights.name: weights for weights in _ALL})
"""Every file of ImageNet weights by name."""


def hub_checkpoints() -> Path:
    """Return the folder that torchvision downloads to, as `torch.hub` finds it."""
    home = os.environ.get("TORCH_HOME")
    if home is None:
        home = str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def find(name: str, *, convolutions: bool = False) -> Path:
    """Return where the weights lie: torchvision's file, or the packaged asset if `convolutions` are enough.

    Raises:
        DataUnavailableError: If they are not on this machine; the message says what gets them.
    """
    weights = WEIGHTS[name]
    if weights.path.is_file():
        return weights.path
    command = weights.command
    if convolutions and weights.convolutions:
        if packaged := assets.cached(weights.convolutions):
            return packaged
        command = assets.ASSETS[weights.convolutions].command
    raise DataUnavailableError(
        f"expected torchvision's {weights.enum} on this machine, got none; run `{command}`, or put "
        f"{weights.file} into {weights.path.parent}"
    )


def check(weights: ImageNetWeights) -> None:
    """Check torchvision's file against the digits in its name.

    Raises:
        DataUnavailableError: If it has another content.
    """
    with weights.path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(weights.digits):
        raise DataUnavailableError(
            f"{weights.path}: expected a file whose sha256 begins with {weights.digits}, got {found}; "
            f"remove it and run `{weights.command}`"
        )
