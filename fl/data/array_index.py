"""What the files of an array set hold: read once, with NumPy, then known from the cache without it."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from fl.cards import PARTS, DataInfo
from fl.data.array_formats import MalformedError, array_format
from fl.data.array_sets import ArraySet
from fl.data.config import Constants
from fl.data.index_cache import cached
from fl.data.split import assign_parts, quotas
from fl.data.table_labels import Label
from fl.errors import DataUnavailableError, UsageError
from fl.specs import JSON, canonical_json, digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fl.data.array_config import ArrayConfig
    from fl.data.array_formats import Images, Labels

CHUNK = 1 << 24
"""Bytes of pixels read at once for their mean."""


class ArrayIndex(NamedTuple):
    """What planning needs to know of the files.

    Attributes:
        counts: Each label that occurs in each official part (multilabel: each combination), and how often.
        content: Digest of the decompressed files.
    """

    counts: Mapping[str, tuple[tuple[Label, int], ...]]
    content: str


def read_index(facts: ArraySet, root: str | None) -> ArrayIndex:
    """Return what the files hold.

    Raises:
        DataUnavailableError: If files are missing, damaged or of another data set.
    """
    files = facts.locate(root)
    found: Any = _remembered(facts, files, "index", lambda: _survey(facts, files))
    counts = {
        official: tuple(
            (tuple(label) if isinstance(label, list) else label, images) for label, images in each
        )
        for official, each in found["counts"].items()
    }
    return ArrayIndex(counts, digest(canonical_json(found["sha256"])))


def describe(config: ArrayConfig) -> DataInfo:
    """Return what the configured data set holds.

    Raises:
        DataUnavailableError: If files are missing, damaged or of another data set.
        UsageError: If the private part is empty, or normalisation is asked for without public images.
    """
    facts, index = config.facts, read_index(config.facts, config.root)
    images = {part: _count(part, facts, index, config) for part in PARTS}
    if not images["private"]:
        raise UsageError(f"{facts.name}: expected private images, got none; change private_labels:")
    mean, std = config.constants(facts.channels, lambda: _public_constants(facts, config.root))
    identity = {"config": config.identity(index.content), "name": facts.name, "version": facts.version}
    return DataInfo(
        task=facts.task,
        channels=facts.channels,
        size=config.size,
        images=images,
        public=True,
        fingerprint=digest(canonical_json(identity)),
        mean=mean,
        std=std,
    )


def deal(facts: ArraySet, official: str, labels: Labels) -> list[str]:
    """Return the part of each image of an official part, by the rule of `fl.data.split`."""
    keys = [f"{facts.name}/{image_id(official, row)}" for row in range(len(labels))]
    return assign_parts(keys, as_labels(labels), facts.shares[official])


def as_labels(labels: Labels) -> list[Label]:
    """Return the label of each image as `fl.data.config.DataConfig.keeps` takes it."""
    rows: list[Any] = labels.tolist()
    return [tuple(row) for row in rows] if labels.ndim > 1 else rows


def image_id(official: str, row: int) -> str:
    """Return the id of the image in that row of an official part."""
    return f"{official}-{row:06}"


def read_labels(facts: ArraySet, files: Sequence[Path], official: str) -> Labels:
    """Return the labels of an official part, counted from 0: `N`, or `N x outputs` of 0 and 1.

    Raises:
        DataUnavailableError: If the file is damaged or of another data set.
    """
    try:
        labels = array_format(facts.format).labels(files, official) - facts.first_label
    except MalformedError as error:
        raise _unusable(facts, error) from error
    multilabel = facts.task.kind == "multilabel"
    shape = (len(labels), facts.task.outputs) if multilabel else (len(labels),)
    last = 1 if multilabel else facts.task.classes - 1
    if labels.shape != shape or (len(labels) and not 0 <= labels.min() <= labels.max() <= last):
        found = f"{labels.shape} from {labels.min()} to {labels.max()}" if labels.size else f"{labels.shape}"
        message = f"expected labels of shape {shape} from 0 to {last}, got {found}"
        raise _unusable(facts, MalformedError(files[-1], message))
    return labels


def read_images(facts: ArraySet, files: Sequence[Path], official: str) -> Images:
    """Return the images of an official part, `N x side x side x C` bytes, read-only or mapped.

    Raises:
        DataUnavailableError: If the file is damaged or of another data set.
    """
    try:
        return array_format(facts.format).images(files, official)
    except MalformedError as error:
        raise _unusable(facts, error) from error


def _remembered(facts: ArraySet, files: Mapping[str, Sequence[Path]], what: str, compute: Any) -> JSON:
    return cached(_distinct(files), compute, purpose=f"{facts.name} {facts.version} {what}")


def _distinct(files: Mapping[str, Sequence[Path]]) -> list[Path]:
    return list(dict.fromkeys(path for paths in files.values() for path in paths))


def _survey(facts: ArraySet, files: Mapping[str, Sequence[Path]]) -> JSON:
    try:
        counts = {official: _class_counts(facts, files[official], official) for official in files}
        sha256 = [_sha256(path) for path in _distinct(files)]
    except MalformedError as error:
        raise _unusable(facts, error) from error
    except OSError as error:
        raise DataUnavailableError(
            f"{facts.name}: expected files that can be read, got: {error}; check their permissions"
        ) from error
    return cast(JSON, {"counts": counts, "sha256": sha256})


def _class_counts(facts: ArraySet, files: Sequence[Path], official: str) -> list[tuple[Label, int]]:
    labels = read_labels(facts, files, official)
    shape = array_format(facts.format).shape(files, official)
    expected = (len(labels), facts.side, facts.side, facts.channels)
    if shape != expected:
        raise MalformedError(
            files[0], f"expected images of shape {expected}, one for each label, got {shape}"
        )
    return sorted(Counter(as_labels(labels)).items())


def _sha256(path: Path) -> str:
    """Return the digest of what the file holds, decompressed."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MalformedError(path, f"expected a gzip file, got a damaged one: {error}") from error


def _count(part: str, facts: ArraySet, index: ArrayIndex, config: ArrayConfig) -> int:
    official = facts.official_part(part)
    return sum(
        quotas(images, facts.shares[official])[part]
        for label, images in index.counts[official]
        if config.keeps(part, label)
    )


def _public_constants(facts: ArraySet, root: str | None) -> Constants:
    """Return mean and standard deviation per channel of the public part, never narrowed, in [0, 1]."""
    files = facts.locate(root)
    found: Any = _remembered(facts, files, "constants", lambda: _measure(facts, files))
    mean, std = found
    if min(std) <= 0:
        raise UsageError(
            f"{facts.name}: normalise: dataset needs public images that vary, got constant ones or none; set "
            "normalise: none"
        )
    return Constants(tuple(mean), tuple(std))


def _measure(facts: ArraySet, files: Mapping[str, Sequence[Path]]) -> JSON:
    import numpy as np

    official = facts.official_part("public")
    parts = deal(facts, official, read_labels(facts, files[official], official))
    rows = [row for row, part in enumerate(parts) if part == "public"]
    images = read_images(facts, files[official], official)
    sums, squares = np.zeros(facts.channels, dtype=np.int64), np.zeros(facts.channels, dtype=np.int64)
    step = max(CHUNK // (facts.side**2 * facts.channels), 1)
    for start in range(0, len(rows), step):
        pixels = images[rows[start : start + step]].astype(np.int64)
        sums += pixels.sum(axis=(0, 1, 2))
        squares += (pixels**2).sum(axis=(0, 1, 2))
    count = max(len(rows), 1) * facts.side**2
    mean = sums / count
    variance = np.maximum(squares / count - mean**2, 0.0)
    return [(mean / 255).tolist(), (np.sqrt(variance) / 255).tolist()]


def _unusable(facts: ArraySet, error: MalformedError) -> DataUnavailableError:
    return DataUnavailableError(f"{error.path}: {error}; remove it, then {facts.get}")
