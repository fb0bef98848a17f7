"""What must hold on every node before it is given work: the driver's code, and the driver's store."""

from __future__ import annotations

import hashlib
import platform
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from fl.errors import UsageError
from harness.execute.executor import LaneSettings
from harness.store.storage import TEMPORARY, MissingFileError, Storage, open_storage

PACKAGES = ("attacks", "defenses", "fl", "harness")


@dataclass(frozen=True)
class Preflight:
    """What the driver has, for a node to compare itself with.

    Attributes:
        versions: The driver's `environment()`.
        marks: Files that the driver has written, as pairs of a store's URI and a path in it.
        host: The driver's host.
    """

    versions: Mapping[str, str]
    marks: tuple[tuple[str, str], ...]
    host: str = field(default_factory=platform.node)

    def check(self) -> None:
        """Compare this process and the store it reaches with the driver's.

        Raises:
            UsageError: If they differ, or if the store cannot be read or written (`StoreError`).
        """
        here = environment()
        if self.host == platform.node():
            here["code"] = self.versions["code"]  # the same files, even if someone has saved one since
        for name, expected in self.versions.items():
            if here[name] != expected:
                raise UsageError(
                    f"expected {name} {expected} as on the driver, got {here[name]}; "
                    "install the same on every node"
                )
        for uri, path in self.marks:
            store = open_storage(uri, private=True)
            try:
                store.read(path)
            except MissingFileError:
                raise UsageError(
                    f"expected the driver's store at {uri}, got a folder without the driver's files; with "
                    "more than one node `store.uri` and `store.private_uri` must be shared folders or s3://"
                ) from None
            own = f"{path}-{secrets.token_hex(4)}"
            store.write(own, b"node")
            store.delete(own)


class StoreMarks:
    """Small files in the stores by which a node can tell that it sees the driver's."""

    def __init__(self, settings: LaneSettings) -> None:
        self._path = f"{TEMPORARY}node-check-{secrets.token_hex(8)}"
        self._stores: tuple[Storage, ...] = tuple(
            open_storage(uri, private=True) for uri in (settings.artifact_uri, settings.private_uri)
        )

    def write(self) -> tuple[tuple[str, str], ...]:
        """Write them (again) and return where they are.

        Raises:
            StoreError: If the driver cannot write to a store.
        """
        for store in self._stores:
            store.write(self._path, b"driver")
        return tuple((store.uri, self._path) for store in self._stores)

    def remove(self) -> None:
        """Remove them."""
        for store in self._stores:
            store.delete(self._path)


def environment() -> dict[str, str]:
    """Return what must be equal on all nodes for a row to be the same wherever it is computed."""
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "leakbench": _version("leakbench"),
        "torch": _version("torch"),
        "code": _code_digest(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _code_digest() -> str:
    """Return a digest of the source files: a version number stays the same while a checkout is edited."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        root = Path(spec.origin).parent
        for file in sorted(root.rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
