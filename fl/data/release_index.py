"""Which images the parts of a release hold: listed once, remembered, and planned with without reading one.

An image is named by its place in the release, so parts and results are the same on every machine, wherever
the release lies. The cache knows these names: they are published, unlike those of a `folder`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

from fl.cards import PARTS, DataInfo
from fl.data.config import Constants
from fl.data.index_cache import cached
from fl.data.measure import measure
from fl.data.release_config import Entry, ReleaseConfig
from fl.data.split import assign_parts
from fl.data.table_labels import Label
from fl.data.tables import fail
from fl.errors import DataUnavailableError, UsageError
from fl.specs import JSON, canonical_json, digest

logger = logging.getLogger(__name__)
Stamped = tuple[Entry, str]
_ORDER = ("", *PARTS)
MEASURED = 1000
"""Public images that `normalise: dataset` is measured on, at most."""


class ReleaseImage(NamedTuple):
    """An image of a release.

    Attributes:
        name: Its file, relative to the root, with `/`: also its id.
        stamp: Its size in bytes, or its sha256 (`ReleaseConfig.hashed`).
        label: Its label.
        group: Its patient or person, where known.
        part: The part it belongs to.
    """

    name: str
    stamp: str
    label: Label
    group: str | None
    part: str


class Summary(NamedTuple):
    """What planning needs to know of a release.

    Attributes:
        content: Digest of all its images, and of the names and sizes of their regions' files.
        images: Number of images of each part, narrowed and limited.
        groups: Number of groups in the private part, where known.
        constants: What images are normalised with.
    """

    content: str
    images: dict[str, int]
    groups: int | None
    constants: Constants


def list_images(config: ReleaseConfig) -> list[ReleaseImage]:
    """Return all images of the release, by name.

    Raises:
        DataUnavailableError: If the release is not there or lacks files.
        UsageError: If its tables break their form.
    """
    root = config.find_root()
    own = {name: value for name, value in config.options().items() if name not in ReleaseConfig.model_fields}
    rows: Any = cached(
        config.sources(root),
        lambda: cast(JSON, _list(config, root)),
        purpose=canonical_json(["images", config.name, config.version, own]),
    )
    return [
        ReleaseImage(name, stamp, tuple(label) if isinstance(label, list) else label, group, part)
        for name, stamp, label, group, part in rows
    ]


def part_images(images: Sequence[ReleaseImage], part: str, config: ReleaseConfig) -> list[ReleaseImage]:
    """Return the images of a part, narrowed and limited as configured, by name."""
    kept = [image for image in images if image.part == part and config.keeps(part, image.label)]
    limit = config.limit.of(part)
    return kept if limit is None or len(kept) <= limit else _first(kept, limit)


def summarise(config: ReleaseConfig) -> Summary:
    """Return what planning needs to know, from the cache if nothing changed.

    Raises:
        DataUnavailableError: If the release is not there or lacks files.
        UsageError: If its tables break their form, or a part is empty that should not be.
    """
    found: Any = cached(
        config.sources(config.find_root()),
        lambda: cast(JSON, _summarise(config)),
        purpose=canonical_json(["summary", config.name, config.version, config.options()]),
    )
    content, images, groups, (mean, std) = found
    return Summary(content, images, groups, Constants(tuple(mean), tuple(std)))


def describe(config: ReleaseConfig) -> DataInfo:
    """Return what the configured release holds.

    Raises:
        DataUnavailableError: If the release is not there or lacks files.
        UsageError: If its tables break their form, or a part is empty that should not be.
    """
    summary = summarise(config)
    identity = {
        "config": config.identity(summary.content),
        "name": config.name,
        "version": config.version,
    }
    return DataInfo(
        task=config.learned,
        channels=1 if config.channels == "gray" else 3,
        size=config.size,
        images=summary.images,
        public=False,
        fingerprint=digest(canonical_json(identity)),
        groups=summary.groups,
        mean=summary.constants.mean,
        std=summary.constants.std,
        regions=config.regions,
    )


def _list(config: ReleaseConfig, root: Path) -> list[ReleaseImage]:
    entries = sorted(config.entries(root), key=lambda entry: entry.name)
    _refuse_repeated(entries)
    if not entries:
        raise DataUnavailableError(f"{config.name}: expected images in {root}, got none; {config.get}")
    logger.info("%s: listing %d images in %s; this is done once", config.name, len(entries), root)
    stamps = list(_stamps(entries, root, hashed=config.hashed))
    stamped = _kept_apart(list(zip(entries, stamps, strict=True)), hashed=config.hashed)
    return [
        ReleaseImage(entry.name, stamp, entry.label, entry.group, part)
        for (entry, stamp), part in zip(stamped, _parts(stamped, config), strict=True)
    ]


def _kept_apart(stamped: Sequence[Stamped], *, hashed: bool) -> list[Stamped]:
    """Return the images without those whose group, or equal, the release gives to a later part as well."""

    def kin(entry: Entry, stamp: str) -> str | None:
        return entry.group or (stamp if hashed else None)

    last: dict[str | None, str] = {}
    for entry, stamp in stamped:
        if entry.part:
            last[kin(entry, stamp)] = max(last.get(kin(entry, stamp), ""), entry.part, key=_ORDER.index)
    last.pop(None, None)
    return [
        (entry, stamp) for entry, stamp in stamped if entry.part == last.get(kin(entry, stamp), entry.part)
    ]


def _refuse_repeated(entries: Sequence[Entry]) -> None:
    fail(
        [
            f"{second.origin}: expected each image once, got {second.name} here and in {first.origin}"
            for first, second in pairwise(entries)
            if first.name == second.name
        ]
    )


def _stamps(entries: Sequence[Entry], root: Path, *, hashed: bool) -> Iterator[str]:
    missing = []
    for entry in entries:
        path = root / entry.name
        try:
            yield _sha256(path) if hashed else str(path.stat().st_size)
        except OSError as error:
            missing.append(f"{entry.origin}: expected an image at {path}, got: {error.strerror}")
    fail(missing, DataUnavailableError)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parts(stamped: Sequence[Stamped], config: ReleaseConfig) -> list[str]:
    """Return each image's part: the release's, else by group, else by class; equal files stay together."""
    units = [_unit(entry, stamp, config) for entry, stamp in stamped]
    strata: dict[str, Label] = {}
    one_class = config.learned.kind != "multilabel"
    for (entry, _), unit in zip(stamped, units, strict=True):
        if not entry.part:
            strata.setdefault(unit, entry.label if one_class and entry.group is None else 0)
    part_of = dict(zip(strata, assign_parts(list(strata), list(strata.values()), config.shares), strict=True))
    return [entry.part or part_of[unit] for (entry, _), unit in zip(stamped, units, strict=True)]


def _unit(entry: Entry, stamp: str, config: ReleaseConfig) -> str:
    """Return what goes to one part as a whole: a group; files that are, or by their size may be, equal."""
    return entry.group or (stamp if config.hashed else f"{entry.label}/{stamp}")


def _first(images: Sequence[ReleaseImage], limit: int) -> list[ReleaseImage]:
    return sorted(sorted(images, key=lambda image: digest(image.name))[:limit])


def _refuse_unknown_labels(config: ReleaseConfig) -> None:
    classes = config.learned.classes
    for part in PARTS:
        unknown = [label for label in config.labels(part) or () if label >= classes]
        if unknown:
            raise UsageError(
                f"{config.name}: {part}_labels: expected labels of 0 to {classes - 1}, got {unknown[0]}"
            )


def _summarise(config: ReleaseConfig) -> Summary:
    images = list_images(config)
    _refuse_unknown_labels(config)
    hashed = hashlib.sha256()
    for image in images:
        hashed.update(canonical_json(image).encode() + b"\n")
    for region in _regions(images, config):
        hashed.update(canonical_json(region).encode() + b"\n")
    parts = {part: part_images(images, part, config) for part in PARTS}
    for part, kept in parts.items():
        if not kept and (part == "private" or config.labels(part) is not None):
            raise UsageError(
                f"{config.name}: expected images in the {part} part, got none; change {part}_labels:"
            )
    groups = {image.group for image in parts["private"]}
    return Summary(
        content=hashed.hexdigest(),
        images={part: len(kept) for part, kept in parts.items()},
        groups=None if None in groups else len(groups),
        constants=config.constants(
            1 if config.channels == "gray" else 3, lambda: _public_constants(images, config)
        ),
    )


def _regions(images: Sequence[ReleaseImage], config: ReleaseConfig) -> Iterator[tuple[str, int]]:
    """Yield name and size of each file of a region that is there."""
    root = config.find_root()
    for name in (config.region_name(image.name) for image in images if config.regions):
        with suppress(OSError):
            yield name, (root / name).stat().st_size


def _public_constants(images: Sequence[ReleaseImage], config: ReleaseConfig) -> Constants:
    """Return the constants of the public part, neither narrowed nor limited, from its first `MEASURED`."""
    public = [image for image in images if image.part == "public"]
    if not public:
        raise UsageError(
            f"{config.name}: normalise: dataset needs a public part, got none; set normalise: none"
        )
    root = config.find_root()
    paths = [root / image.name for image in _first(public, MEASURED)]
    return measure(config.name, paths, size=config.size, channels=config.channels, fit=config.fit)
