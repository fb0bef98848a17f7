"""Which images a `folder` data set names: from class folders, or from a CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fl.cards import PARTS
from fl.data.table_labels import flags, names
from fl.data.tables import Row, fail, read_table
from fl.errors import DataUnavailableError, UsageError

if TYPE_CHECKING:
    from fl.data.folder_config import FolderConfig

SUFFIXES = frozenset({".bmp", ".dcm", ".dicom", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class Listed(NamedTuple):
    """An image that the user named.

    Attributes:
        path: The file.
        origin: Where it was named, for messages.
        label: Its class, as written ("0" or "1" in a column of 0/1); multilabel: 0 or 1 per output.
        patient: Its patient, if given.
        part: Its part, if given.
    """

    path: Path
    origin: str
    label: str | tuple[int, ...]
    patient: str | None
    part: str | None


class Listing(NamedTuple):
    """The images that the user named.

    Attributes:
        images: The images.
        outputs: Names of the outputs (binary and multilabel); none where classes are told by the images.
    """

    images: list[Listed]
    outputs: tuple[str, ...]


def list_images(config: FolderConfig) -> Listing:
    """Return the images that the configuration leads to.

    Raises:
        DataUnavailableError: If the folder, the CSV or an image is missing.
        UsageError: If the folder holds no images, or the CSV breaks its form.
    """
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise DataUnavailableError(
            f"{root}: expected a folder of images, got none; set root: of data: folder"
        )
    listing = Listing(list(_from_folders(root)), ()) if config.csv is None else _from_csv(root, config)
    if not listing.images:
        wanted = "a folder per class with images in it" if config.csv is None else "rows"
        raise UsageError(f"{root if config.csv is None else root / config.csv}: expected {wanted}, got none")
    return listing


def _from_folders(root: Path) -> Iterator[Listed]:
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        images = [path for path in sorted(folder.rglob("*")) if is_image(path)]
        if not images:
            raise UsageError(
                f"{folder}: expected images ({', '.join(sorted(SUFFIXES))}) of class {folder.name!r}, got "
                "none; add some or remove the folder"
            )
        for path in images:
            yield Listed(path, str(path), folder.name, None, None)


def is_image(path: Path) -> bool:
    """Return whether a file is taken for an image by its name."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _from_csv(root: Path, config: FolderConfig) -> Listing:
    table = root / str(config.csv)
    rows = read_table(table, _columns(config), missing="set csv: of data: folder")
    problems: list[str] = []
    outputs = _outputs(table, rows, config)
    listed = [_row(root, row, config, outputs, problems) for row in rows]
    fail(problems)
    images = [image for image in listed if image is not None]
    missing = [
        f"{image.origin}: expected an image at {image.path}, got no file"
        for image in images
        if not image.path.is_file()
    ]
    fail(missing, DataUnavailableError)
    if rows and not images:
        raise UsageError(f"{table}: expected images, got only uncertain ones; change uncertain: drop")
    return Listing(images, outputs)


def _columns(config: FolderConfig) -> dict[str, str]:
    """Return the columns that the table must have, each with the option that named it."""
    columns = {config.path_column: "path_column"}
    columns |= dict.fromkeys(config.label_columns or (), "label_columns") or {
        config.label_column: "label_column"
    }
    if config.split_column is not None:
        columns[config.split_column] = "split_column"
    if config.patient_column is not None:
        columns[config.patient_column] = "patient_column"
    return columns


def _outputs(table: Path, rows: Sequence[Row], config: FolderConfig) -> tuple[str, ...]:
    """Return the names of the outputs: the columns of 0/1, or the names in the one column, sorted."""
    if config.label_separator is None or config.label_columns is None:
        return config.flags
    column, separator = config.label_columns[0], config.label_separator
    found = sorted(frozenset[str]().union(*(names(row.cells[column], separator) for row in rows)))
    if rows and len(found) < 2:
        raise UsageError(
            f"{table}: expected at least two names in column {column!r}, separated by {separator!r}, got "
            f"{', '.join(found) or 'none'}"
        )
    return tuple(found)


def _row(
    root: Path, row: Row, config: FolderConfig, outputs: Sequence[str], problems: list[str]
) -> Listed | None:
    required = [config.path_column, config.patient_column, config.split_column]
    if config.task == "multiclass":
        required.insert(1, config.label_column)
    empty = [column for column in required if column is not None and not row.cells[column]]
    problems.extend(f"{row.origin}: expected a value in column {column!r}, got none" for column in empty)
    label = _label(row, config, outputs, problems)
    patient, part = (
        None if column is None else row.cells[column]
        for column in (config.patient_column, config.split_column)
    )
    if part and part not in PARTS:
        problems.append(
            f"{row.origin}: expected {', '.join(PARTS)} in column {config.split_column!r}, got {part!r}"
        )
    if label is None:
        return None
    return Listed(root / row.cells[config.path_column], row.origin, label, patient, part)


def _label(
    row: Row, config: FolderConfig, outputs: Sequence[str], problems: list[str]
) -> str | tuple[int, ...] | None:
    """Return the class, or 0 or 1 per output; None if the image is to be left out or a cell is wrong."""
    if config.task == "multiclass":
        return row.cells[config.label_column]
    if config.label_separator is not None and config.label_columns is not None:
        present = names(row.cells[config.label_columns[0]], config.label_separator)
        return tuple(int(output in present) for output in outputs)
    cells = [(column, row.cells[column]) for column in config.flags]
    entries = flags(cells, origin=row.origin, uncertain=config.uncertain, problems=problems)
    return str(entries[0]) if entries and config.task == "binary" else entries
