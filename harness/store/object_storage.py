"""The store's operations on an object store (`s3://`, `gs://`, ...), through pyarrow's file systems."""

from __future__ import annotations

import posixpath
from typing import IO, TYPE_CHECKING, Any

from fl.errors import StoreError
from harness.store.storage import MissingFileError, reporting

if TYPE_CHECKING:
    import pyarrow as pa

_WITHOUT_FOLDERS = frozenset({"s3", "gcs", "abfs"})


class ObjectStorage:
    """Files under a prefix of an object store.

    A PUT is atomic, a rename is not: it is a copy and a delete, which the store's intent file makes safe to
    repeat. There is no exclusive creation either: `create` writes and reads back, so two drivers that start
    in the same instant are told apart by who wrote last.
    """

    def __init__(self, filesystem: Any, root: str, *, uri: str) -> None:
        self._filesystem = filesystem
        self._root = root
        self._uri = uri

    @classmethod
    def from_uri(cls, uri: str) -> ObjectStorage:
        """Connect to the file system that the URI names.

        Raises:
            StoreError: If the scheme is unknown or the file system cannot be set up.
        """
        import pyarrow as pa
        from pyarrow.fs import FileSystem

        try:
            filesystem, root = FileSystem.from_uri(uri)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StoreError(
                f"cannot open the store {uri}: {error}. Expected a local path or a URI such as "
                "s3://bucket/folder"
            ) from error
        return cls(filesystem, root, uri=uri)

    @property
    def uri(self) -> str:
        """The root's URI."""
        return self._uri

    def locate(self, path: str) -> str:
        """Return the file's URI."""
        return f"{self._uri.rstrip('/')}/{path}"

    def prepare(self, folder: str = "") -> None:
        """Make the folder, where the file system has folders at all."""
        if self._filesystem.type_name in _WITHOUT_FOLDERS:
            return
        with reporting("make folder", self.locate(folder)):
            self._filesystem.create_dir(self._path(folder), recursive=True)

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names in `folder`; none if it is not there."""
        from pyarrow.fs import FileSelector

        with reporting("list", self.locate(folder)):
            found = self._filesystem.get_file_info(FileSelector(self._path(folder), allow_not_found=True))
        return sorted(info.base_name for info in found)

    def exists(self, path: str) -> bool:
        """Whether the file is there."""
        return bool(self._info(path).is_file)

    def size(self, path: str) -> int:
        """Return the file's size in bytes."""
        return int(self._present(path).size)

    def modified(self, path: str) -> float:
        """Return when the file was last written, by the store's clock."""
        return float(self._present(path).mtime.timestamp())

    def open(self, path: str) -> IO[bytes]:
        """Open the file for reading."""
        file: IO[bytes] = self.open_arrow(path)
        return file

    def open_arrow(self, path: str) -> pa.NativeFile:
        """Open the file for Arrow."""
        with reporting("read", self.locate(path)):
            return self._filesystem.open_input_file(self._path(path))

    def read(self, path: str) -> bytes:
        """Return the file's bytes."""
        with self.open(path) as file, reporting("read", self.locate(path)):
            return file.read()

    def write(self, path: str, data: bytes) -> None:
        """Write the file with one PUT."""
        self.prepare(posixpath.dirname(path))
        place = self.locate(path)
        with reporting("write", place), self._filesystem.open_output_stream(self._path(path)) as stream:
            stream.write(data)

    def create(self, path: str, data: bytes) -> bool:
        """Write the file unless it is there, and check that nobody wrote over it."""
        if self.exists(path):
            return False
        self.write(path, data)
        return self.read(path) == data

    def touch(self, path: str) -> bool:
        """Write the file again."""
        try:
            self.write(path, self.read(path))
        except MissingFileError:
            return False
        return True

    def move(self, source: str, target: str) -> None:
        """Copy the file, then delete the source."""
        with reporting("write", self.locate(target)):
            self._filesystem.copy_file(self._path(source), self._path(target))
        self.delete(source)

    def delete(self, path: str) -> None:
        """Remove the file if it is there."""
        with reporting("delete", self.locate(path)):
            try:
                self._filesystem.delete_file(self._path(path))
            except FileNotFoundError:
                return

    def _path(self, path: str) -> str:
        return posixpath.join(self._root, path) if path else self._root

    def _info(self, path: str) -> Any:
        with reporting("read", self.locate(path)):
            return self._filesystem.get_file_info(self._path(path))

    def _present(self, path: str) -> Any:
        info = self._info(path)
        if not info.is_file:
            raise MissingFileError(f"expected the file {self.locate(path)}, got none; run the command again")
        return info
