"""Loading the data sets that are published as whole arrays: torchvision's and MedMNIST's files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from fl.cards import PARTS
from fl.data.array_index import as_labels, deal, describe, image_id, read_images, read_labels
from fl.data.base import Dataset, Part
from fl.data.resize import resize

if TYPE_CHECKING:
    from torch import Tensor

    from fl.data.array_config import ArrayConfig
    from fl.data.array_formats import Images
    from fl.specs import Task


def load(config: ArrayConfig) -> Dataset:
    """Return the data set; pixels stay bytes, on disk where the format allows, until they are asked for.

    Raises:
        DataUnavailableError: If files are missing, damaged or of another data set.
        UsageError: If the private part is empty, or normalisation is asked for without public images.
    """
    info = describe(config)
    facts = config.facts
    parts: dict[str, Part] = {}
    for official, files in facts.locate(config.root).items():
        labels = read_labels(facts, files, official)
        images = read_images(facts, files, official)
        rows: dict[str, list[int]] = {part: [] for part in PARTS if facts.official_part(part) == official}
        dealt = zip(deal(facts, official, labels), as_labels(labels), strict=True)
        for row, (part, label) in enumerate(dealt):
            if config.keeps(part, label):
                rows[part].append(row)
        for part, own in rows.items():
            parts[part] = Part(
                ids=tuple(image_id(official, row) for row in own),
                labels=_labels(info.task, labels[own]),
                groups=None,
                read=_Rows(images, own, config.size),
            )
    return Dataset(info=info, parts={part: parts[part] for part in PARTS})


def _labels(task: Task, labels: np.ndarray) -> Tensor:
    if task.kind == "multiclass":
        return torch.from_numpy(labels)
    return torch.from_numpy(labels.reshape(len(labels), task.outputs).astype(np.float32))


class _Rows:
    """Reads images of one part out of those of an official part."""

    def __init__(self, images: Images, rows: Sequence[int], size: int) -> None:
        self._images, self._rows, self._size = images, np.asarray(rows, dtype=np.int64), size

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """Return images `n x C x H x W` in [0, 1]."""
        pixels = np.asarray(self._images[self._rows[list(indices)]])  # n x side x side x C
        images = pixels.transpose(0, 3, 1, 2).astype(np.float32, order="C") / np.float32(255)
        return resize(torch.from_numpy(images), self._size)
