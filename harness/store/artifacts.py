"""The outputs of stages, content-addressed: one safetensors file each, complete once it is there.

The file is an ordinary safetensors file. Its metadata hold the artifact's JSON (`data`) and the sha256 of
everything in the file (`sha256`). Equal artifacts give equal bytes. The JSON and the raw bytes of tensors can
be read without importing torch, which the driver never does.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from fl.errors import StoreError
from fl.specs import JSON
from fl.types import Artifact
from harness.store.storage import open_storage, sweep

if TYPE_CHECKING:
    from torch import Tensor

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,127}")
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format."""


class _Header(NamedTuple):
    """What a file says of itself.

    Attributes:
        data: The artifact's JSON.
        sha256: Its checksum.
        entries: The tensors' header entries, as text.
        ranges: First byte and end of each tensor, counted from `start`.
        start: Where the tensors' bytes begin.
    """

    data: dict[str, JSON]
    sha256: str
    entries: str
    ranges: dict[str, tuple[int, int]]
    start: int

    @property
    def file_size(self) -> int:
        return self.start + max((end for _, end in self.ranges.values()), default=0)


class ArtifactStore:
    """Artifacts under a local path or an object store, at `<uri>/<key[:2]>/<key>.safetensors`.

    Keys are 2 to 128 letters, digits, `-` and `_`. Any number of processes may read and write: the last of
    several writers of one key wins, and all of them write the same bytes.
    """

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        self._storage = open_storage(uri, private=True)

    def has(self, key: str) -> bool:
        """Whether the artifact is there (and so complete)."""
        return self._storage.exists(_path(key))

    def put(self, key: str, artifact: Artifact) -> None:
        """Store the artifact; a reader sees all of it or nothing.

        Raises:
            StoreError: If it cannot be written.
        """
        self._storage.write(_path(key), _encode(artifact))

    def get(self, key: str) -> Artifact:
        """Return the artifact, its tensors on the CPU.

        Raises:
            StoreError: If it is missing or damaged.
        """
        path = _path(key)
        content = self._storage.read(path)
        header = self._verified(path, content)
        return Artifact(_load_tensors(content) if header.ranges else {}, header.data)

    def read_json(self, key: str) -> dict[str, JSON]:
        """Return the artifact's JSON; reads the file's header alone and needs no torch.

        Raises:
            StoreError: If it is missing or cut short.
        """
        path = _path(key)
        with self._storage.open(path) as file:
            header = self._header(path, file, self._storage.size(path))
        return header.data

    def read_bytes(self, key: str) -> dict[str, bytes]:
        """Return the raw bytes of every tensor by name (PNG files stored as uint8); needs no torch.

        Raises:
            StoreError: If it is missing or damaged.
        """
        path = _path(key)
        content = self._storage.read(path)
        header = self._verified(path, content)
        return {
            name: content[header.start + begin : header.start + end]
            for name, (begin, end) in header.ranges.items()
        }

    def discard(self, key: str) -> None:
        """Delete the artifact if it is there; what needs it computes it again."""
        self._storage.delete(_path(key))

    def sweep(self, *, older_than_s: float = 86_400.0) -> int:
        """Remove temporary files that crashed writers left, and return how many.

        Args:
            older_than_s: Leave younger files alone; a live process may be writing them.
        """
        folders = self._storage.names()
        return sum(sweep(self._storage, folder, older_than_s=older_than_s) for folder in folders)

    def _verified(self, path: str, content: bytes) -> _Header:
        header = self._header(path, io.BytesIO(content), len(content))
        found = _checksum(header.entries, _dump(header.data), memoryview(content)[header.start :])
        if found != header.sha256:
            raise self._damaged(path, "its content does not match its checksum")
        return header

    def _header(self, path: str, file: IO[bytes], size: int) -> _Header:
        try:
            header = _parse_header(file)
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(path, str(error)) from error
        if header.file_size != size:
            raise self._damaged(path, f"expected {header.file_size} bytes, got {size}")
        return header

    def _damaged(self, path: str, why: str) -> StoreError:
        return StoreError(
            f"damaged artifact {self._storage.locate(path)}: {why}. Delete the file; it is computed again"
        )


def _path(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"expected a key of 2 to 128 letters, digits, '-' and '_', got {key!r}")
    return f"{key[:2]}/{key}.safetensors"


def _encode(artifact: Artifact) -> bytes:
    """Lay the artifact out as a safetensors file with sorted header entries."""
    entries, payload = _tensor_bytes(artifact.tensors)
    data = _dump(dict(artifact.data))
    metadata = {"data": data, "sha256": _checksum(_dump(entries), data, payload)}
    text = _dump({"__metadata__": metadata, **entries}).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # the format aligns the tensors to 8 bytes
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + payload


def _tensor_bytes(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], bytes]:
    """Return safetensors' own header entries and payload for the tensors."""
    if not tensors:
        return {}, b""
    from safetensors.torch import save

    # A clone of its own for each: the format refuses tensors that share memory, as views of one stack do.
    owned = {name: tensors[name].detach().cpu().clone().contiguous() for name in sorted(tensors)}
    content = save(owned)
    start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    return json.loads(content[_LENGTH_BYTES:start]), content[start:]


def _checksum(entries: str, data: str, payload: bytes | memoryview) -> str:
    checksum = sha256(f"{entries}\n{data}\n".encode())
    checksum.update(payload)
    return checksum.hexdigest()


def _load_tensors(content: bytes) -> dict[str, Tensor]:
    from safetensors.torch import load

    return load(content)


def _dump(value: Any) -> str:
    """Return sorted JSON; unlike in canonical JSON, scores may be infinite (an exact copy's PSNR)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _parse_header(file: IO[bytes]) -> _Header:
    """Read the header of a safetensors file.

    Raises:
        ValueError, KeyError or TypeError: If it is not one that this module wrote.
    """
    prefix = file.read(_LENGTH_BYTES)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < _LENGTH_BYTES or length > _MAX_HEADER_BYTES:
        raise ValueError("not a safetensors file")
    text = file.read(length)
    if len(text) < length:
        raise ValueError("its header is cut short")
    entries = json.loads(text)
    metadata = entries.pop("__metadata__")
    ranges = {
        name: (int(entry["data_offsets"][0]), int(entry["data_offsets"][1]))
        for name, entry in entries.items()
    }
    data = json.loads(metadata["data"])
    return _Header(data, metadata["sha256"], _dump(entries), ranges, _LENGTH_BYTES + length)
