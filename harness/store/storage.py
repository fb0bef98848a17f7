"""Files under one root, on a local disk or in an object store: the few operations the store is built on.

Every write is complete or absent: locally a temporary dot-file, fsync and rename; in an object store one PUT.
Paths are relative to the root, with forward slashes.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from fl.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

TEMPORARY = ".tmp-"
"""Prefix of files that are being written; readers ignore dot-files, and a sweep removes old ones."""


class MissingFileError(StoreError):
    """A file of the store that is not there (any more)."""


class Storage(Protocol):
    """Files under one root. Every method raises `StoreError` naming the file where the store fails."""

    @property
    def uri(self) -> str:
        """The root as the user would write it."""

    def locate(self, path: str) -> str:
        """Return `path` as the user would write it."""

    def prepare(self, folder: str = "") -> None:
        """Make the folder if it is not there; an object store has none."""

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of the files and folders in `folder`; none if it is not there."""

    def exists(self, path: str) -> bool:
        """Whether the file is there."""

    def size(self, path: str) -> int:
        """Return the file's size in bytes. Raises `MissingFileError`."""

    def modified(self, path: str) -> float:
        """Return when the file was last written, by the store's clock, in s. Raises `MissingFileError`."""

    def open(self, path: str) -> IO[bytes]:
        """Open the file for reading, with seek. Raises `MissingFileError`."""

    def open_arrow(self, path: str) -> pa.NativeFile:
        """Open the file for Arrow. Raises `MissingFileError`.

        Arrow's threads must not be given Python's own files: one that lets go of its file while the
        interpreter shuts down aborts the process.
        """

    def read(self, path: str) -> bytes:
        """Return the file's bytes. Raises `MissingFileError`."""

    def write(self, path: str, data: bytes) -> None:
        """Write the file at once, replacing what is there."""

    def create(self, path: str, data: bytes) -> bool:
        """Write the file unless it is there already; return whether it was written."""

    def touch(self, path: str) -> bool:
        """Renew the file's time; return False if it is not there."""

    def move(self, source: str, target: str) -> None:
        """Rename a file, replacing the target. Raises `MissingFileError`."""

    def delete(self, path: str) -> None:
        """Remove the file if it is there."""


def open_storage(uri: str | Path, *, private: bool = False) -> Storage:
    """Return the storage at a local path or at a URI such as `s3://bucket/folder`.

    Args:
        uri: The root; it need not exist.
        private: Local folders made here are for this user only (mode 0700).

    Raises:
        StoreError: If the URI's scheme is unknown or its file system cannot be reached.
    """
    path = str(uri).removeprefix("file://")
    if "://" not in path:
        return LocalStorage(path, private=private)
    from harness.store.object_storage import ObjectStorage

    return ObjectStorage.from_uri(str(uri))


def sweep(storage: Storage, folder: str = "", *, older_than_s: float = 0.0) -> int:
    """Remove temporary files that a crash left in `folder`; return how many.

    Args:
        storage: The store.
        folder: Where to look; folders inside it are left alone.
        older_than_s: Leave younger files, which another process may be writing.
    """
    removed = 0
    for name in storage.names(folder):
        path = f"{folder}/{name}" if folder else name
        if name.startswith(TEMPORARY) and _age(storage, path) >= older_than_s:
            storage.delete(path)
            removed += 1
    return removed


def _age(storage: Storage, path: str) -> float:
    try:
        return time.time() - storage.modified(path)
    except MissingFileError:  # its writer has just finished
        return -1.0


class LocalStorage:
    """Files under a local folder (a network file system included)."""

    def __init__(self, root: str | Path, *, private: bool = False) -> None:
        self._root = Path(root).expanduser()
        self._mode = 0o700 if private else 0o777

    @property
    def uri(self) -> str:
        """The root's path."""
        return str(self._root)

    def locate(self, path: str) -> str:
        """Return the file's path."""
        return str(self._root / path)

    def prepare(self, folder: str = "") -> None:
        """Make the folder and those above it; the ones from the root down get the storage's mode."""
        with self._reporting("make folder", folder):
            self._root.parent.mkdir(parents=True, exist_ok=True)
            made = self._root
            made.mkdir(mode=self._mode, exist_ok=True)
            for part in Path(folder).parts:
                made = made / part
                made.mkdir(mode=self._mode, exist_ok=True)

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names in `folder`; none if it is not there."""
        with self._reporting("list", folder):
            try:
                return sorted(os.listdir(self._root / folder))
            except FileNotFoundError:
                return []

    def exists(self, path: str) -> bool:
        """Whether the file is there."""
        return (self._root / path).is_file()

    def size(self, path: str) -> int:
        """Return the file's size in bytes."""
        with self._reporting("read", path):
            return (self._root / path).stat().st_size

    def modified(self, path: str) -> float:
        """Return the file's modification time."""
        with self._reporting("read", path):
            return (self._root / path).stat().st_mtime

    def open(self, path: str) -> IO[bytes]:
        """Open the file for reading."""
        with self._reporting("read", path):
            return (self._root / path).open("rb")

    def open_arrow(self, path: str) -> pa.NativeFile:
        """Open the file for Arrow."""
        import pyarrow as pa

        with self._reporting("read", path):
            return pa.OSFile(self.locate(path))

    def read(self, path: str) -> bytes:
        """Return the file's bytes."""
        with self._reporting("read", path):
            return (self._root / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        """Write a temporary file beside the target, flush it to the disk and rename it."""
        target = self._root / path
        self.prepare(os.path.dirname(path))
        temporary = target.parent / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"
        with self._reporting("write", path):
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def create(self, path: str, data: bytes) -> bool:
        """Write the file if there is none: of several processes that try, one succeeds."""
        self.prepare(os.path.dirname(path))
        with self._reporting("write", path):
            try:
                descriptor = os.open(self._root / path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                return False
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        return True

    def touch(self, path: str) -> bool:
        """Set the file's time to now, by the file server's clock."""
        with self._reporting("write", path):
            try:
                os.utime(self._root / path)
            except FileNotFoundError:
                return False
        return True

    def move(self, source: str, target: str) -> None:
        """Rename a file."""
        with self._reporting("write", target):
            os.replace(self._root / source, self._root / target)

    def delete(self, path: str) -> None:
        """Remove the file if it is there."""
        with self._reporting("delete", path):
            (self._root / path).unlink(missing_ok=True)

    @contextmanager
    def _reporting(self, action: str, path: str) -> Iterator[None]:
        with reporting(action, self.locate(path)):
            yield


@contextmanager
def reporting(action: str, place: str) -> Iterator[None]:
    """Turn an `OSError` into a `StoreError` that names the file and what to do.

    Raises:
        MissingFileError: For a file that is not there.
        StoreError: For every other failure.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(f"expected the file {place}, got none; run the command again") from error
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise StoreError(
            f"cannot {action} {place}: {reason}. What is stored is unharmed: free disk space, check the "
            "permissions or choose another folder, then run the same command again"
        ) from error
