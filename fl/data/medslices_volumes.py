"""What `medslices` holds, known without reading a voxel.

Intensity windows are in Hounsfield units for CT and in the scanner's units for MR, where they run from the
volume's 0th to its 99.5th percentile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fl.cards import PARTS, DataInfo
from fl.data.assets import ASSETS
from fl.data.base import UNLABELLED
from fl.data.config import Constants
from fl.specs import Task, canonical_json, digest

if TYPE_CHECKING:
    from fl.data.medical_cards import MedslicesConfig

NAME = "medslices"
VERSION = 1
CHEST_CT, HEAD_MR = 0, 1
MEAN, STD = 0.1317, 0.1835
"""Of the public part: windowed, padded and not resized."""


class Volume(NamedTuple):
    """The scan of one patient.

    Attributes:
        name: Of its files, without their endings; it is the patient's name, too.
        part: The part that all its slices belong to.
        label: The class of its slices, or `UNLABELLED`.
        slices: Number of axial slices.
        rows: Height of a slice.
        columns: Width of a slice.
        window: Intensities that become 0 and 1.
    """

    name: str
    part: str
    label: int
    slices: int
    rows: int
    columns: int
    window: tuple[float, float]


VOLUMES = (
    Volume("lung1", "private", CHEST_CT, 48, 512, 512, (-1000, 400)),
    Volume("brain1", "private", HEAD_MR, 25, 256, 256, (0, 1784)),
    Volume("breast1", "public", UNLABELLED, 21, 120, 45, (6, 169)),
    Volume("lung2", "test", CHEST_CT, 61, 512, 512, (-1000, 400)),
    Volume("brain2", "test", HEAD_MR, 23, 256, 256, (0, 1054)),
)


def volumes(config: MedslicesConfig, part: str) -> list[Volume]:
    """Return the volumes of a part, narrowed as configured."""
    return [volume for volume in VOLUMES if volume.part == part and config.keeps(part, volume.label)]


def describe(config: MedslicesConfig) -> DataInfo:
    """Return what the data set holds under `config`."""
    channels = 1 if config.channels == "gray" else 3
    mean, std = config.constants(channels, lambda: Constants((MEAN,) * channels, (STD,) * channels))
    identity = {
        "config": config.resolved(),
        "name": NAME,
        "sources": {member.file: member.sha256 for member in ASSETS[NAME].members},
        "version": VERSION,
    }
    return DataInfo(
        task=Task(config.task, config.task_classes or 2),
        channels=channels,
        size=config.size,
        images={part: sum(volume.slices for volume in volumes(config, part)) for part in PARTS},
        public=True,
        fingerprint=digest(canonical_json(identity)),
        groups=len(volumes(config, "private")),
        mean=mean,
        std=std,
        regions=True,
    )
