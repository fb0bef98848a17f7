"""`folder`: the user's own images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from fl.cards import PARTS
from fl.data.base import Dataset, Part
from fl.data.folder_index import IndexedImage, read_index, summarise
from fl.data.folder_pixels import open_resized

if TYPE_CHECKING:
    from torch import Tensor

    from fl.data.catalog import FolderConfig


def load(config: FolderConfig) -> Dataset:
    """Return the data set; an image is decoded when it is first asked for.

    Raises:
        DataUnavailableError: If a file is missing or damaged.
        UsageError: If the images are not a data set of this size and these parts.
    """
    index = read_index(config)
    return Dataset(
        info=summarise(index, config),
        parts={part: _part(index.part(part, config), config) for part in PARTS},
    )


def _part(images: Sequence[IndexedImage], config: FolderConfig) -> Part:
    patients = tuple(str(image.patient) for image in images)
    return Part(
        ids=tuple(image.id for image in images),
        labels=torch.tensor([image.label for image in images], dtype=torch.int64),
        groups=None if config.patient_column is None else patients,
        read=_Pixels(images, config),
    )


class _Pixels:
    """Decodes images once and keeps them as bytes."""

    def __init__(self, images: Sequence[IndexedImage], config: FolderConfig) -> None:
        self._images, self._config = images, config
        channels = 1 if config.channels == "gray" else 3
        self._bytes = torch.empty(len(images), channels, config.size, config.size, dtype=torch.uint8)
        self._decoded = [False] * len(images)

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """Return images `n x C x H x W` in [0, 1]."""
        for index in indices:
            if not self._decoded[index]:
                self._bytes[index] = self._decode(self._images[index])
                self._decoded[index] = True
        return self._bytes[list(indices)].float() / 255

    def _decode(self, image: IndexedImage) -> Tensor:
        opened = open_resized(image.path, self._config.size, self._config.channels)
        pixels = np.array(opened)  # H x W or H x W x 3
        return torch.from_numpy(pixels.reshape(self._config.size, self._config.size, -1)).permute(2, 0, 1)
