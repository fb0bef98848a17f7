"""Downloading the array data sets from their publishers, by torchvision's own downloader."""

from __future__ import annotations

import contextlib
import http.client
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl.data.array_config import ArrayConfig
from fl.data.array_sets import data_dir
from fl.data.medmnist import MedMnistConfig
from fl.data.medmnist_sets import RESOLUTIONS
from fl.errors import DataUnavailableError

_FAILURES = (OSError, RuntimeError, http.client.HTTPException, tarfile.TarError, zipfile.BadZipFile)
"""What torchvision's downloader raises: no connection (a URLError is an OSError), or another content."""


def fetch(config: ArrayConfig) -> Path:
    """Download the files that `config` leads to, where it looks for them, unless they are there.

    Their MD5 digests, or those of the archives they come in, are checked.

    Returns:
        The folder they are in.

    Raises:
        DataUnavailableError: If they cannot be had.
    """
    root = data_dir(config.root)
    with contextlib.suppress(DataUnavailableError):
        return _folder(config)
    try:
        root.mkdir(parents=True, exist_ok=True)
        if isinstance(config, MedMnistConfig):
            _fetch_medmnist(config, root / "medmnist")
        else:
            _TORCHVISION[config.facts.name](root)
    except _FAILURES as error:
        reason = " ".join(str(error).split())
        raise DataUnavailableError(
            f"{config.facts.name} could not be downloaded to {root}: {reason}; {config.facts.get}, or copy "
            "its files from a machine that has them"
        ) from error
    return _folder(config)


def _folder(config: ArrayConfig) -> Path:
    return next(iter(config.facts.locate(config.root).values()))[0].parent


def _fetch_medmnist(config: MedMnistConfig, folder: Path) -> None:
    from torchvision.datasets.utils import download_url

    file, resolution = config.file, config.stored_side
    md5 = config.published.md5[RESOLUTIONS.index(resolution)]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as temporary:
        download_url(config.published.url(resolution), temporary, file, md5)
        Path(temporary, file).replace(folder / file)


def _mnist(root: Path) -> None:
    from torchvision.datasets import MNIST

    MNIST(root, download=True)


def _fashion_mnist(root: Path) -> None:
    from torchvision.datasets import FashionMNIST

    FashionMNIST(root, download=True)


def _emnist(root: Path) -> None:
    from torchvision.datasets import EMNIST

    EMNIST(root, split="mnist", download=True)  # one archive holds all splits


def _svhn(root: Path) -> None:
    from torchvision.datasets import SVHN

    for split in ("train", "test"):
        SVHN(root, split=split, download=True)


def _cifar10(root: Path) -> None:
    from torchvision.datasets import CIFAR10

    _cifar(CIFAR10, root)


def _cifar100(root: Path) -> None:
    from torchvision.datasets import CIFAR100

    _cifar(CIFAR100, root)


def _cifar(published: Any, root: Path) -> None:
    """Download and unpack the archive; torchvision's class would also unpickle it without restraint."""
    from torchvision.datasets.utils import download_and_extract_archive

    download_and_extract_archive(published.url, root, filename=published.filename, md5=published.tgz_md5)


_TORCHVISION: dict[str, Callable[[Path], None]] = {
    "mnist": _mnist,
    "fashion_mnist": _fashion_mnist,
    "emnist": _emnist,
    "svhn": _svhn,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
}
