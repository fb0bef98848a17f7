"""Mean and standard deviation of image files, measured with Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from PIL import ImageStat

from fl.data.config import Constants, Fit
from fl.data.folder_pixels import open_resized
from fl.errors import UsageError


def measure(
    name: str, paths: Sequence[Path], *, size: int, channels: Literal["gray", "rgb"], fit: Fit = "crop"
) -> Constants:
    """Return mean and standard deviation per channel over all pixels of the resized images, in [0, 1].

    Args:
        name: The data set, for messages.
        paths: At least one file.
        size: Side in pixels.
        channels: Gray or RGB.
        fit: How an image becomes a square.

    Raises:
        DataUnavailableError: If an image cannot be decoded.
        UsageError: If the images of a channel do not vary.
    """
    found = [ImageStat.Stat(open_resized(path, size, channels, fit=fit)) for path in paths]
    pixels = len(paths) * size**2
    means = [sum(sums) / pixels for sums in zip(*(stat.sum for stat in found), strict=True)]
    squares = [sum(sums) / pixels for sums in zip(*(stat.sum2 for stat in found), strict=True)]
    variances = [square - mean**2 for square, mean in zip(squares, means, strict=True)]
    if min(variances) <= 0:
        raise UsageError(f"{name}: normalise: dataset needs images that vary, got constant ones in public")
    return Constants(
        tuple(mean / 255 for mean in means), tuple(variance**0.5 / 255 for variance in variances)
    )
