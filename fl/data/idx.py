"""The IDX format of MNIST and its relatives: a big-endian header, then bytes (LeCun et al. 1998)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from fl.data.array_formats import Files, MalformedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fl.data.array_formats import Images, Labels

UNSIGNED_BYTES = 8
"""Code of the element type in the third byte of the header."""


class Idx:
    """Two files a part, images (`N x H x W`) and labels (`N`), plain or compressed by gzip."""

    def shape(self, files: Files, part: str) -> tuple[int, ...]:
        """Return `(N, H, W, 1)` from the header."""
        with _opened(files[0]) as file:
            return (*_header(files[0], file, axes=3), 1)

    def labels(self, files: Files, part: str) -> Labels:
        """Return the N labels."""
        return _bytes(files[1], axes=1).astype(np.int64)

    def images(self, files: Files, part: str) -> Images:
        """Return the images, `N x H x W x 1`; a plain file is mapped."""
        return _bytes(files[0], axes=3)[..., np.newaxis]


class Emnist(Idx):
    """EMNIST's files: IDX in which the rows of an image are the columns of the character."""

    def shape(self, files: Files, part: str) -> tuple[int, ...]:
        """Return `(N, H, W, 1)` of upright images."""
        images, width, height, channels = super().shape(files, part)
        return images, height, width, channels

    def images(self, files: Files, part: str) -> Images:
        """Return the images upright, `N x H x W x 1`."""
        return super().images(files, part).transpose(0, 2, 1, 3)


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def _header(path: Path, file: BinaryIO, *, axes: int) -> tuple[int, ...]:
    """Read the header and return the shape."""
    length = 4 + 4 * axes
    try:
        start = file.read(length)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MalformedError(path, f"expected an IDX file, got a damaged gzip file: {error}") from error
    if len(start) < length or start[:4] != bytes((0, 0, UNSIGNED_BYTES, axes)):
        raise MalformedError(
            path, f"expected an IDX file of unsigned bytes with {axes} axes, got the start {start[:4].hex()}"
        )
    return struct.unpack(f">{axes}I", start[4:])


def _bytes(path: Path, *, axes: int) -> NDArray[np.uint8]:
    with _opened(path) as file:
        shape = _header(path, file, axes=axes)
        if path.suffix == ".gz":
            content = np.frombuffer(_rest(path, file), dtype=np.uint8)
        else:
            content = np.memmap(path, dtype=np.uint8, mode="r")[file.tell() :]
    if content.size != math.prod(shape):
        raise MalformedError(path, f"expected {math.prod(shape)} bytes after the header, got {content.size}")
    return content.reshape(shape)


def _rest(path: Path, file: BinaryIO) -> bytes:
    try:
        return file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MalformedError(path, f"expected an IDX file, got a damaged gzip file: {error}") from error
