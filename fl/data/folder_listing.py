"""Which images a `folder` data set names: from class folders, or from a CSV."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fl.cards import PARTS
from fl.errors import DataUnavailableError, UsageError

if TYPE_CHECKING:
    from fl.data.catalog import FolderConfig

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
SHOWN = 10
"""Mistakes shown in one message."""


class Listed(NamedTuple):
    """An image that the user named.

    Attributes:
        path: The file.
        origin: Where it was named, for messages.
        label: Its class, as written.
        patient: Its patient, if given.
        part: Its part, if given.
    """

    path: Path
    origin: str
    label: str
    patient: str | None
    part: str | None


def list_images(config: FolderConfig) -> list[Listed]:
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
    listed = list(_from_folders(root) if config.csv is None else _from_csv(root, config))
    if not listed:
        wanted = "a folder per class with images in it" if config.csv is None else "rows"
        raise UsageError(f"{root if config.csv is None else root / config.csv}: expected {wanted}, got none")
    return listed


def fail(problems: list[str], kind: type[UsageError] = UsageError) -> None:
    """Raise the mistakes found, if any, as one error of at most `SHOWN` lines."""
    if problems:
        more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise kind("\n".join(problems[:SHOWN] + more))


def _from_folders(root: Path) -> Iterator[Listed]:
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        images = [path for path in sorted(folder.rglob("*")) if _is_image(path)]
        if not images:
            raise UsageError(
                f"{folder}: expected images ({', '.join(sorted(SUFFIXES))}) of class {folder.name!r}, got "
                "none; add some or remove the folder"
            )
        for path in images:
            yield Listed(path, str(path), folder.name, None, None)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _from_csv(root: Path, config: FolderConfig) -> Iterator[Listed]:
    table = root / str(config.csv)
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _require_columns(table, list(reader.fieldnames or ()), config)
            rows = [(f"{table}:{reader.line_num}", row) for row in reader]
    except OSError as error:
        raise DataUnavailableError(
            f"{table}: expected a CSV, got: {error.strerror}; set csv: of data: folder"
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{table}: expected a CSV in UTF-8, got: {error}") from error
    problems: list[str] = []
    missing: list[str] = []
    for origin, row in rows:
        listed = _row(root, origin, row, config, problems)
        if listed is not None:
            if not listed.path.is_file():
                missing.append(f"{origin}: expected an image at {listed.path}, got no file")
            yield listed
    fail(problems)
    fail(missing, DataUnavailableError)


def _require_columns(table: Path, found: list[str], config: FolderConfig) -> None:
    named = {
        "path_column": config.path_column,
        "label_column": config.label_column,
        "split_column": config.split_column,
        "patient_column": config.patient_column,
    }
    problems = []
    for option, column in named.items():
        if column is not None and column not in found:
            near = difflib.get_close_matches(column, found, n=1)
            hint = f"; did you mean {option}: {near[0]}?" if near else f"; set {option}:"
            problems.append(
                f"{table}:1: expected a column {column!r}, got {', '.join(found) or 'no columns'}{hint}"
            )
    fail(problems)


def _row(
    root: Path, origin: str, row: dict[str, str | None], config: FolderConfig, problems: list[str]
) -> Listed | None:
    def cell(column: str | None) -> str | None:
        return None if column is None else (row[column] or "").strip()

    path, label = cell(config.path_column), cell(config.label_column)
    patient, part = cell(config.patient_column), cell(config.split_column)
    required = {
        config.path_column: path,
        config.label_column: label,
        config.patient_column: patient,
        config.split_column: part,
    }
    empty = [str(column) for column, value in required.items() if value == ""]
    problems.extend(f"{origin}: expected a value in column {column!r}, got none" for column in empty)
    if part and part not in PARTS:
        problems.append(
            f"{origin}: expected {', '.join(PARTS)} in column {config.split_column!r}, got {part!r}"
        )
        return None
    if empty or path is None or label is None:
        return None
    return Listed(root / path, origin, label, patient, part)
