"""What a `folder` data set holds: classes, parts and identity, from its files and without torch or numpy.

Identity is content. Images are named, ordered and split by the sha256 of their files, so moving or renaming
them changes no result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from fl.cards import PARTS, DataInfo
from fl.data.config import Constants
from fl.data.folder_files import File, check_files
from fl.data.folder_listing import list_images
from fl.data.index_cache import cached
from fl.data.measure import measure
from fl.data.split import assign_parts
from fl.data.table_labels import Label
from fl.data.tables import fail
from fl.errors import UsageError
from fl.specs import JSON, Task, canonical_json, digest

if TYPE_CHECKING:
    from fl.data.folder_config import FolderConfig

VERSION = 1


class IndexedImage(NamedTuple):
    """An image of a folder data set.

    Attributes:
        id: Start of its content's sha256, numbered where files are equal.
        path: The file.
        label: Its class (binary: 0 or 1); multilabel: 0 or 1 per output.
        patient: Its patient, if given.
        part: The part it belongs to.
    """

    id: str
    path: Path
    label: Label
    patient: str | None
    part: str


@dataclass(frozen=True)
class FolderIndex:
    """All images of a folder data set, in the order of their content.

    Attributes:
        classes: Names of the classes, or of the outputs (multilabel); a label is a position in it.
        images: The images.
        content: Digest of every image's content, class, patient and given part.
    """

    classes: tuple[str, ...]
    images: tuple[IndexedImage, ...]
    content: str

    def part(self, part: str, config: FolderConfig) -> list[IndexedImage]:
        """Return the images of a part, narrowed as configured."""
        return [image for image in self.images if image.part == part and config.keeps(part, image.label)]


def read_index(config: FolderConfig) -> FolderIndex:
    """Read, check and split the images that the configuration leads to.

    Raises:
        DataUnavailableError: If a file is missing or damaged.
        UsageError: If the images are not a data set of this size and these parts.
    """
    root = Path(config.root).expanduser()
    listing = list_images(config)
    files = check_files(listing.images, root=root, size=config.size, patients=config.patients)
    files.sort(
        key=lambda file: (file.sha256, file.listed.label, file.listed.patient or "", file.listed.part or "")
    )
    classes = _class_names(files, listing.outputs, config)
    parts = _parts(files, config)
    _refuse_overlap(files, parts)
    content = [[f.sha256, f.listed.label, f.listed.patient, f.listed.part] for f in files]
    return FolderIndex(classes, _images(files, parts, classes), digest(canonical_json(content)))


def describe(config: FolderConfig) -> DataInfo:
    """Return what the configured folder holds.

    Raises:
        DataUnavailableError: If a file is missing or damaged.
        UsageError: If the images are not a data set of this size and these parts.
    """
    return summarise(read_index(config), config)


def summarise(index: FolderIndex, config: FolderConfig) -> DataInfo:
    """Return what `index` holds under `config`.

    Raises:
        DataUnavailableError: If normalisation is asked for and a public image cannot be decoded.
        UsageError: If a part is empty that should not be.
    """
    parts = {part: index.part(part, config) for part in PARTS}
    _refuse_empty(parts, config)
    channels = 1 if config.channels == "gray" else 3
    mean, std = config.constants(channels, lambda: _public_statistics(index, config))
    patients = {image.patient for image in parts["private"]}
    identity = {"config": config.identity(index.content), "name": "folder", "version": VERSION}
    return DataInfo(
        task=Task(config.task, len(index.classes)),
        channels=channels,
        size=config.size,
        images={part: len(images) for part, images in parts.items()},
        public=config.public,
        fingerprint=digest(canonical_json(identity)),
        groups=len(patients) if config.knows_patients else None,
        mean=mean,
        std=std,
    )


def _class_names(files: Sequence[File], outputs: tuple[str, ...], config: FolderConfig) -> tuple[str, ...]:
    names = outputs if config.task == "multilabel" else _classes(files, config)
    for part in PARTS:
        unknown = [label for label in config.labels(part) or () if label >= len(names)]
        if unknown:
            numbered = ", ".join(f"{label} = {name}" for label, name in enumerate(names))
            raise UsageError(
                f"{part}_labels: expected classes of {config.root} ({numbered}), got {unknown[0]}"
            )
    return names


def _classes(files: Sequence[File], config: FolderConfig) -> tuple[str, ...]:
    names = sorted({str(file.listed.label) for file in files})
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    if len(names) < 2:
        raise UsageError(f"{config.root}: expected at least two classes, got {len(names)} ({names[0]!r})")
    if config.task == "binary" and len(names) != 2:
        raise UsageError(
            f"{config.root}: expected two classes for task: binary, got {len(names)} ({', '.join(names)})"
        )
    return tuple(names)


def _parts(files: Sequence[File], config: FolderConfig) -> list[str]:
    """Return each file's part: as given, else by patient, else by class; equal files stay together.

    Multilabel images have no one class: they are split as a whole.
    """
    if config.split_column is not None:
        return [str(file.listed.part) for file in files]
    if config.knows_patients:
        units = [("", str(file.listed.patient)) for file in files]
    elif config.task == "multilabel":
        units = [("", file.sha256) for file in files]
    else:
        units = [(str(file.listed.label), file.sha256) for file in files]
    distinct = sorted(set(units))
    parts = assign_parts(
        [key for _, key in distinct], [stratum for stratum, _ in distinct], config.split.shares
    )
    part_of = dict(zip(distinct, parts, strict=True))
    return [part_of[unit] for unit in units]


def _refuse_overlap(files: Sequence[File], parts: Sequence[str]) -> None:
    first: dict[str, tuple[File, str]] = {}
    problems = []
    for file, part in zip(files, parts, strict=True):
        names = {f"the image {file.sha256[:16]}": file.sha256}
        if file.listed.patient is not None:
            names[f"patient {file.listed.patient!r}"] = f"patient {file.listed.patient}"
        for name, key in names.items():
            other, other_part = first.setdefault(key, (file, part))
            if other_part != part:
                problems.append(
                    f"{file.listed.origin}: expected {name} in one part only, got {part} here and "
                    f"{other_part} in {other.listed.origin}"
                )
    fail(problems)


def _refuse_empty(parts: dict[str, list[IndexedImage]], config: FolderConfig) -> None:
    shares = config.split.shares._asdict()
    for part, images in parts.items():
        wanted = config.labels(part) is not None or (config.split_column is None and shares[part] > 0)
        if not images and (wanted or part == "private"):
            raise UsageError(
                f"{config.root}: expected images in the {part} part, got none; add images, or change "
                f"{config.split_column or 'split:'} or {part}_labels:"
            )


def _images(files: Sequence[File], parts: Sequence[str], classes: Sequence[str]) -> tuple[IndexedImage, ...]:
    label_of = {name: label for label, name in enumerate(classes)}
    seen: Counter[str] = Counter()
    images = []
    for file, part in zip(files, parts, strict=True):
        name = file.sha256[:16]
        number = f"-{seen[name]}" if seen[name] else ""
        seen[name] += 1
        listed = file.listed
        label = listed.label if isinstance(listed.label, tuple) else label_of[listed.label]
        images.append(IndexedImage(name + number, listed.path, label, listed.patient, part))
    return tuple(images)


def _public_statistics(index: FolderIndex, config: FolderConfig) -> Constants:
    """Return the constants of the public part, never narrowed; measured once for its images' contents."""
    public = [image for image in index.images if image.part == "public"]
    if not public:
        raise UsageError(
            f"{config.root}: normalise: dataset needs a public part, got none; set normalise: none"
        )
    paths = [image.path for image in public]
    shape: Any = {"size": config.size, "channels": config.channels, "fit": config.fit}
    found: Any = cached(
        [],  # contents decide, which are known
        lambda: cast(JSON, measure(config.root, paths, **shape)),
        purpose=canonical_json(
            ["folder constants", VERSION, shape, index.content, [image.id for image in public]]
        ),
    )
    mean, std = found
    return Constants(tuple(mean), tuple(std))
