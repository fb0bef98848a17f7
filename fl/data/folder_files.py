"""Digests and checks of a folder's files, remembered by their size and time of change.

The cache knows files by hashed names only: those of a private collection may name patients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fl.data.cache import read_document, write_document
from fl.data.folder_listing import Listed
from fl.data.folder_pixels import ImageFacts, UnusableError, inspect
from fl.data.tables import fail
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
    patient: str = ""


def check_files(
    listed: Sequence[Listed], *, root: Path, size: int, patients: Literal["dicom"] | None = None
) -> list[File]:
    """Digest every file and check that it is an image of at least `size` pixels a side.

    Args:
        listed: The files.
        root: The folder that the user named; what is found out is remembered for it.
        size: Fewest pixels a side.
        patients: `dicom`: patients are those that the files name, not those listed.

    Raises:
        DataUnavailableError: If files cannot be read or are damaged.
        UsageError: If images are too small, or name no patient and should.
    """
    document = f"folders/{digest(str(root.resolve()))[:20]}.json"
    known = read_document(document)
    facts: dict[str, _Facts] = {}
    files: list[File] = []
    damaged: list[str] = []
    small: list[str] = []
    nameless: list[str] = []
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
        elif patients == "dicom" and not found.patient:
            nameless.append(
                f"{image.path}: expected a DICOM file with a PatientID, got none; unset patients:"
            )
        named = image._replace(patient=found.patient) if patients == "dicom" else image
        files.append(File(named, found.sha256))
    if {key: list(found) for key, found in facts.items()} != known:
        write_document(document, facts)
    fail(damaged, DataUnavailableError)
    fail(small + nameless)
    return files


def _facts(path: Path, known: Any) -> _Facts:
    try:
        stat = path.stat()
        if isinstance(known, list) and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            facts = _Facts(*known)
            if not facts.flaw:  # a flaw may be gone once a decoder is installed
                return facts
        content = path.read_bytes()
    except OSError as error:
        message = f"{path}: expected a readable image, got: {error.strerror}; check its permissions"
        raise DataUnavailableError(message) from error
    seen, flaw = ImageFacts(0, 0), ""
    try:
        seen = inspect(content)
    except UnusableError as error:
        flaw = str(error)
    sha256 = hashlib.sha256(content).hexdigest()
    return _Facts(stat.st_size, stat.st_mtime_ns, sha256, seen.width, seen.height, flaw, seen.patient)
