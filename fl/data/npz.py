"""MedMNIST's files: one NumPy archive of all parts (Yang et al., Scientific Data 10, 2023, arXiv 2110.14795).

Pixels are mapped from disk: an archive of images of 224 pixels holds up to 16 GB, more than a lane should
keep, and lanes of one machine share a mapped file. An archive whose members are stored as they are
(`numpy.savez`) is mapped itself. The published ones are compressed, which nothing can be mapped from: their
pixels are unpacked into the cache once, and what was unpacked of a file is removed when another file has
taken its place.
"""

from __future__ import annotations

import glob
import math
import shutil
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from filelock import FileLock
from numpy.lib import format as npy

from fl.data.array_formats import Files, MalformedError
from fl.data.cache import cache_dir
from fl.errors import DataUnavailableError
from fl.specs import canonical_json, digest

if TYPE_CHECKING:
    from fl.data.array_formats import Images, Labels

_MALFORMED = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, struct.error)
"""What reading a file of another kind may raise; a pickled array is a ValueError."""


class Npz:
    """One archive with `<part>_images`, `N x H x W [x 3]` bytes, and `<part>_labels`, `N x outputs`."""

    def shape(self, files: Files, part: str) -> tuple[int, ...]:
        """Return `(N, H, W, C)` from the header."""
        try:
            with zipfile.ZipFile(files[0]) as archive, archive.open(f"{part}_images.npy") as member:
                shape = _header(member)
        except _MALFORMED as error:
            raise _malformed(files[0], part, error) from error
        return shape if len(shape) == 4 else (*shape, 1)

    def labels(self, files: Files, part: str) -> Labels:
        """Return the labels: `N` classes, or `N x outputs` if there are several."""
        try:
            with zipfile.ZipFile(files[0]) as archive, archive.open(f"{part}_labels.npy") as member:
                labels = npy.read_array(member, allow_pickle=False)
        except _MALFORMED as error:
            raise _malformed(files[0], part, error) from error
        if labels.ndim != 2 or labels.dtype.kind not in "iu":
            raise MalformedError(
                files[0],
                f"expected {part}_labels of integers, N x outputs, got {labels.dtype} {labels.shape}",
            )
        found: Labels = labels.astype(np.int64)
        return found[:, 0] if found.shape[1] == 1 else found

    def images(self, files: Files, part: str) -> Images:
        """Return the images, `N x H x W x C`, mapped from the archive, or from the cache."""
        path = files[0]
        try:
            with zipfile.ZipFile(path) as archive:
                member = archive.getinfo(f"{part}_images.npy")
            if member.compress_type == zipfile.ZIP_STORED:
                pixels = _mapped(path, member)
            else:
                pixels = np.load(_unpacked(path, part, member), mmap_mode="r", allow_pickle=False)
        except _MALFORMED as error:
            raise _malformed(path, part, error) from error
        return pixels if pixels.ndim == 4 else pixels[..., np.newaxis]


def _header(member: IO[bytes]) -> tuple[int, ...]:
    version = npy.read_magic(member)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran_order, dtype = read(member)
    if dtype != np.uint8 or fortran_order or len(shape) not in (3, 4):
        raise ValueError(f"images of {dtype} {shape}, not bytes of shape N x H x W or N x H x W x C")
    return tuple(shape)


def _mapped(path: Path, member: zipfile.ZipInfo) -> Images:
    """Return the images of a member that is stored as it is.

    Its content follows a header of its own, whose last two fields of fixed place are the lengths of what ends
    it: the member's name and further fields (PKWARE's APPNOTE, section 4.3.7).
    """
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        file.seek(sum(struct.unpack("<2H", file.read(4))), 1)
        content = file.tell()
        shape = _header(file)
        start = file.tell()
    if start - content + math.prod(shape) != member.file_size:
        raise ValueError(f"{member.file_size} bytes for images of shape {shape}")
    return np.memmap(path, np.uint8, mode="r", offset=start, shape=shape)


def _unpacked(path: Path, part: str, member: zipfile.ZipInfo) -> Path:
    """Return the images of `part` as a file of their own, which is made on first use.

    It is named by where the archive lies, and by the checksum and size that the archive gives: a file that is
    touched, or copied over itself, is not unpacked again.
    """
    place = digest(canonical_json([str(path.resolve()), part]))[:20]
    folder, name = cache_dir() / "unpacked", f"{path.stem}-{part}-{place}"
    target = folder / f"{name}-{member.CRC:08x}-{member.file_size}.npy"
    if target.is_file():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"):
            if not target.is_file():
                _unpack(path, part, target)
                for former in set(folder.glob(f"{glob.escape(name)}-*.npy")) - {target}:
                    former.unlink()
    except OSError as error:
        raise DataUnavailableError(
            f"{path}: expected room for its images in {folder}, got: {error.strerror or error}; make some or "
            "set LEAKBENCH_CACHE to another folder"
        ) from error
    return target


def _unpack(path: Path, part: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpacking-") as temporary:
        copy = Path(temporary, target.name)
        try:
            with (
                zipfile.ZipFile(path) as archive,
                archive.open(f"{part}_images.npy") as member,
                copy.open("wb") as file,
            ):
                shutil.copyfileobj(member, file, 1 << 20)
            np.load(copy, mmap_mode="r", allow_pickle=False)  # its length is that of the header
        except _MALFORMED as error:
            raise _malformed(path, part, error) from error
        copy.replace(target)


def _malformed(path: Path, part: str, error: Exception) -> MalformedError:
    return MalformedError(
        path, f"expected a MedMNIST archive with {part}_images and {part}_labels, got: {error}"
    )
