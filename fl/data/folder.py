"""`folder`: the user's own images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from fl.cards import PARTS
from fl.data.base import Dataset, Part
from fl.data.decoded import image_reader, label_tensor
from fl.data.folder_index import IndexedImage, read_index, summarise
from fl.errors import DataUnavailableError

if TYPE_CHECKING:
    from torch import Tensor

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
        read=_reader(images, config),
    )


def _reader(images: Sequence[IndexedImage], config: FolderConfig) -> Callable[[Sequence[int]], Tensor]:
    """Return a reader whose errors name images by their content: a file's name may be a patient's."""
    read = image_reader(
        [image.path for image in images], size=config.size, channels=config.channels, fit=config.fit
    )

    def one(index: int) -> Tensor:
        try:
            return read([index])
        except DataUnavailableError:
            raise DataUnavailableError(
                f"data set folder: expected an image, got a damaged file whose sha256 begins with "
                f"{images[index].id[:16]}; replace or remove it"
            ) from None

    return lambda indices: torch.cat([one(index) for index in indices])
