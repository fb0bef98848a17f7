"""`folder`: the user's own images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fl.cards import PARTS
from fl.data.base import Dataset, Part
from fl.data.decoded import image_reader, label_tensor
from fl.data.folder_index import IndexedImage, read_index, summarise

if TYPE_CHECKING:
    from fl.data.folder_config import FolderConfig
    from fl.specs import Task


def load(config: FolderConfig) -> Dataset:
    """Return the data set; an image is decoded when it is asked for.

    Raises:
        DataUnavailableError: If a file is missing or damaged.
        UsageError: If the images are not a data set of this size and these parts.
    """
    index = read_index(config)
    info = summarise(index, config)
    return Dataset(
        info=info,
        parts={part: _part(index.part(part, config), info.task, config) for part in PARTS},
    )


def _part(images: Sequence[IndexedImage], task: Task, config: FolderConfig) -> Part:
    patients = tuple(str(image.patient) for image in images)
    return Part(
        ids=tuple(image.id for image in images),
        labels=label_tensor([image.label for image in images], task),
        groups=patients if config.knows_patients else None,
        read=image_reader(
            [image.path for image in images], size=config.size, channels=config.channels, fit=config.fit
        ),
    )
