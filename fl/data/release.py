"""Loading of published data sets whose files users get for themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fl.cards import PARTS
from fl.data.base import Dataset, Part
from fl.data.decoded import image_reader, label_tensor, region_reader
from fl.data.release_index import ReleaseImage, describe, list_images, part_images

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from fl.data.release_config import ReleaseConfig


def load(config: ReleaseConfig) -> Dataset:
    """Return the data set; an image is decoded when it is asked for.

    Raises:
        DataUnavailableError: If the release is not there or lacks files.
        UsageError: If its tables break their form, or a part is empty that should not be.
    """
    info, root, images = describe(config), config.find_root(), list_images(config)
    return Dataset(
        info=info,
        parts={part: _part(part_images(images, part, config), root, config) for part in PARTS},
    )


def _part(images: Sequence[ReleaseImage], root: Path, config: ReleaseConfig) -> Part:
    grouped = any(image.group is not None for image in images)
    return Part(
        ids=tuple(image.name for image in images),
        labels=label_tensor([image.label for image in images], config.learned),
        groups=tuple(str(image.group) for image in images) if grouped else None,
        read=image_reader(
            [root / image.name for image in images],
            size=config.size,
            channels=config.channels,
            fit=config.fit,
        ),
        read_regions=_regions(images, root, config) if config.regions else None,
    )


def _regions(
    images: Sequence[ReleaseImage], root: Path, config: ReleaseConfig
) -> Callable[[Sequence[int]], Tensor]:
    paths = [root / config.region_name(image.name) for image in images]
    return region_reader(paths, size=config.size, fit=config.fit)
