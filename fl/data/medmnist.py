"""Cards and configurations of the two-dimensional MedMNIST sets, read without torch or numpy."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from fl.cards import DataCard, Reference
from fl.data import medmnist_sets as sets
from fl.data.array_config import ArrayConfig
from fl.data.array_index import describe
from fl.data.array_sets import TEST_SHARES, ArraySet
from fl.data.medmnist_sets import RESOLUTIONS, MedMnistSet
from fl.data.split import Shares

VERSION = 1
SHARES = {"train": Shares(0.8, 0.2, 0.0, 0.0), "val": Shares(0.0, 0.0, 1.0, 0.0), "test": TEST_SHARES}


class MedMnistConfig(ArrayConfig):
    """Base of the MedMNIST sets' configurations.

    Attributes:
        published: What is fixed about the set.
    """

    published: ClassVar[MedMnistSet]

    size: int = Field(28, ge=8, le=512, description="side in pixels, resized bilinearly from resolution")
    resolution: Literal[28, 64, 128, 224] | None = Field(
        None,
        description="side of the images in the file; None: the smallest that is at least size, 224 at most",
    )

    @property
    def stored_side(self) -> int:
        """Side of the images in the file that is read."""
        return self.resolution or next((side for side in RESOLUTIONS if side >= self.size), RESOLUTIONS[-1])

    @property
    def file(self) -> str:
        """Name of that file."""
        return self.published.file(self.stored_side)

    @property
    def facts(self) -> ArraySet:
        """What is fixed about the set at this resolution."""
        name = f"medmnist/{self.published.flag}"
        size = "" if self.stored_side == RESOLUTIONS[0] else f" --size {self.stored_side}"
        return ArraySet(
            name=name,
            version=VERSION,
            task=self.published.task,
            channels=self.published.channels,
            side=self.stored_side,
            files=dict.fromkeys(SHARES, (self.file,)),
            folders=("medmnist", ""),
            format="fl.data.npz:Npz",
            shares=SHARES,
            get=f"run `bench data fetch {name}{size}` where the internet can be reached",
        )

    def identity(self, content: str) -> dict[str, Any]:
        """Return the identity, the resolution filled in, given the digest of the file."""
        return {**super().identity(content), "resolution": self.stored_side}


class PathMnistConfig(MedMnistConfig):
    """Configuration of `medmnist/pathmnist`."""

    published = sets.PATHMNIST
    classes: ClassVar[int | None] = 9


class ChestMnistConfig(MedMnistConfig):
    """Configuration of `medmnist/chestmnist`."""

    published = sets.CHESTMNIST
    classes: ClassVar[int | None] = 14


class DermaMnistConfig(MedMnistConfig):
    """Configuration of `medmnist/dermamnist`."""

    published = sets.DERMAMNIST
    classes: ClassVar[int | None] = 7


class OctMnistConfig(MedMnistConfig):
    """Configuration of `medmnist/octmnist`."""

    published = sets.OCTMNIST
    classes: ClassVar[int | None] = 4


class PneumoniaMnistConfig(MedMnistConfig):
    """Configuration of `medmnist/pneumoniamnist`."""

    published = sets.PNEUMONIAMNIST
    classes: ClassVar[int | None] = 2


class RetinaMnistConfig(MedMnistConfig):
    """Configuration of `medmnist/retinamnist`."""

    published = sets.RETINAMNIST
    classes: ClassVar[int | None] = 5


class BreastMnistConfig(MedMnistConfig):
    """Configuration of `medmnist/breastmnist`."""

    published = sets.BREASTMNIST
    classes: ClassVar[int | None] = 2


class BloodMnistConfig(MedMnistConfig):
    """Configuration of `medmnist/bloodmnist`."""

    published = sets.BLOODMNIST
    classes: ClassVar[int | None] = 8


class TissueMnistConfig(MedMnistConfig):
    """Configuration of `medmnist/tissuemnist`."""

    published = sets.TISSUEMNIST
    classes: ClassVar[int | None] = 8


class OrganAMnistConfig(MedMnistConfig):
    """Configuration of `medmnist/organamnist`."""

    published = sets.ORGANAMNIST
    classes: ClassVar[int | None] = 11


class OrganCMnistConfig(MedMnistConfig):
    """Configuration of `medmnist/organcmnist`."""

    published = sets.ORGANCMNIST
    classes: ClassVar[int | None] = 11


class OrganSMnistConfig(MedMnistConfig):
    """Configuration of `medmnist/organsmnist`."""

    published = sets.ORGANSMNIST
    classes: ClassVar[int | None] = 11


def _card(config: type[MedMnistConfig]) -> DataCard[Any]:
    published = config.published
    task = published.task
    kind = {"multiclass": f"{task.classes} classes", "binary": "binary"}.get(task.kind, "multilabel")
    colours = "RGB" if published.channels == 3 else "gray"
    each = "combination of findings" if task.kind == "multilabel" else "class"
    return DataCard(
        name=f"medmnist/{published.flag}",
        version=VERSION,
        summary=f"{sum(published.images):,} {published.holds}, {colours}, {kind}; 28, 64, 128 or 224 pixels.",
        config=config,
        implementation="fl.data.arrays:load",
        reference=Reference("Yang et al., MedMNIST v2, Scientific Data 10, 2023 (arXiv 2110.14795)"),
        licence=published.licence,
        parts=f"official training part: per {each}, in the order of a hash of each image's name, 80 % "
        "private and 20 % public, where one patient's images may be in both; official validation part: "
        f"evaluation; official test part: test; {published.overlap}",
        describe=describe,
        download="fl.data.array_download:fetch",
        class_names=published.class_names,
    )


CARDS: tuple[DataCard[Any], ...] = tuple(
    _card(config)
    for config in (
        PathMnistConfig,
        ChestMnistConfig,
        DermaMnistConfig,
        OctMnistConfig,
        PneumoniaMnistConfig,
        RetinaMnistConfig,
        BreastMnistConfig,
        BloodMnistConfig,
        TissueMnistConfig,
        OrganAMnistConfig,
        OrganCMnistConfig,
        OrganSMnistConfig,
    )
)
