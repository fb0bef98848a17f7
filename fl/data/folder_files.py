"""Digests and checks of a folder's files, remembered by their size and time of change.

The cache knows files by hashed names only: those of a private collection may name patients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fl.data.cache import read_document, write_document
from fl.data.folder_listing import Listed, fail
from fl.data.folder_pixels import UnusableError, inspect
from fl.errors import DataUnavailableError
from fl.specs import digest


class File(NamedTuple):
    """A usable image file.

    Attributes:
        listed: Where and as what it was named.
        sha256: Digest of its content.
    """

    listed: Listed
    sha256: str


class _Facts(NamedTuple):
    bytes: int
    changed_ns: int
    sha256: str
    width: int
    height: int
    flaw: str


def check_files(listed: Sequence[Listed], *, root: Path, size: int) -> list[File]:
    """Digest every file and check that it is an image of at least `size` pixels a side.

    Raises:
        DataUnavailableError: If files cannot be read or are damaged.
        UsageError: If images are too small.
    """
    document = f"folders/{digest(str(root.resolve()))[:20]}.json"
    known = read_document(document)
    facts: dict[str, _Facts] = {}
    files: list[File] = []
    damaged: list[str] = []
    small: list[str] = []
    for image in listed:
        key = digest(str(image.path.resolve()))
        found = facts[key] = _facts(image.path, known.get(key))
        if found.flaw:
            damaged.append(f"{image.path}: {found.flaw}; replace or remove it")
        elif min(found.width, found.height) < size:
            small.append(
                f"{image.path}: expected at least {size} pixels a side, got {found.width}x{found.height}; "
                "lower size: or remove the image"
            )
        files.append(File(image, found.sha256))
    if {key: list(found) for key, found in facts.items()} != known:
        write_document(document, facts)
    fail(damaged, DataUnavailableError)
    fail(small)
    return files


def _facts(path: Path, known: Any) -> _Facts:
    try:
        stat = path.stat()
        if isinstance(known, list) and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return _Facts(*known)
        content = path.read_bytes()
    except OSError as error:
        message = f"{path}: expected a readable image, got: {error.strerror}; check its permissions"
        raise DataUnavailableError(message) from error
    width, height, flaw = 0, 0, ""
    try:
        width, height = inspect(content)
    except UnusableError as error:
        flaw = str(error)
    sha256 = hashlib.sha256(content).hexdigest()
    return _Facts(stat.st_size, stat.st_mtime_ns, sha256, width, height, flaw)
