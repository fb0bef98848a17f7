"""What the readers of array files have in common: reading them takes NumPy, never torch."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Labels = NDArray[np.int64]
    Images = NDArray[np.uint8]

Files = Sequence[Path]
"""The files of one official part, in the order of `ArraySet.files`."""


class MalformedError(Exception):
    """Why a file is not of the expected format, in words that follow its path.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, message: str) -> None:
        self.path = path
        super().__init__(message)


class ArrayFormat(Protocol):
    """A file format. Every method raises `MalformedError` for other content, `OSError` for no access."""

    def shape(self, files: Files, part: str) -> tuple[int, ...]:
        """Return the shape of `images`, if possible without reading them."""

    def labels(self, files: Files, part: str) -> Labels:
        """Return the labels of the official part `part` as they stand in the files: `N`, or `N x outputs`."""

    def images(self, files: Files, part: str) -> Images:
        """Return its images, `N x H x W x C`; read-only, and mapped from disk where that can be."""


def array_format(reference: str) -> ArrayFormat:
    """Return the format named `module:attribute`."""
    module, _, attribute = reference.partition(":")
    found: Any = getattr(importlib.import_module(module), attribute)
    instance: ArrayFormat = found()
    return instance
