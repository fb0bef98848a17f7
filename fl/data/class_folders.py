"""Listing the images of releases that are sorted into folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fl.data.folder_listing import SUFFIXES
from fl.errors import DataUnavailableError


def image_names(folder: Path, *, get: str) -> Iterator[str]:
    """Return the names of the image files directly in a folder, in any order.

    Args:
        folder: The folder.
        get: What to get, from whom, in words.

    Raises:
        DataUnavailableError: If there is no such folder, or no image in it.
    """
    try:
        with os.scandir(folder) as found:
            names = [entry.name for entry in found if _is_image(entry.name)]
    except OSError as error:
        raise DataUnavailableError(
            f"{folder}: expected a folder of images, got: {error.strerror}; {get}"
        ) from error
    if not names:
        raise DataUnavailableError(f"{folder}: expected images, got none; {get}")
    yield from names


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
