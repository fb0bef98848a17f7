"""Reading CSV tables, every row with its place for messages."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fl.errors import DataUnavailableError, UsageError

SHOWN = 10
"""Mistakes shown in one message."""


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        origin: `file:line`.
        cells: What it holds by column, stripped; "" for a missing cell.
    """

    origin: str
    cells: Mapping[str, str]


def fail(problems: list[str], kind: type[UsageError] = UsageError) -> None:
    """Raise the mistakes found, if any, as one error of at most `SHOWN` lines."""
    if problems:
        more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise kind("\n".join(problems[:SHOWN] + more))


def read_table(table: Path, columns: Mapping[str, str], *, missing: str) -> list[Row]:
    """Return the rows of a CSV with a header.

    Args:
        table: The file.
        columns: Columns it must have, each with the option that named it ("" where none did).
        missing: What to do if there is no such file, in words.

    Raises:
        DataUnavailableError: If the file cannot be read.
        UsageError: If it is not a CSV in UTF-8 or lacks columns.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _require(table, list(reader.fieldnames or ()), columns)
            return [
                Row(f"{table}:{reader.line_num}", {name: (row[name] or "").strip() for name in columns})
                for row in reader
            ]
    except OSError as error:
        raise DataUnavailableError(f"{table}: expected a CSV, got: {error.strerror}; {missing}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{table}: expected a CSV in UTF-8, got: {error}") from error


def _require(table: Path, found: list[str], columns: Mapping[str, str]) -> None:
    problems = []
    for column, option in columns.items():
        if column not in found:
            near = difflib.get_close_matches(column, found, n=1)
            hint = (
                "" if not option else f"; did you mean {option}: {near[0]}?" if near else f"; set {option}:"
            )
            problems.append(
                f"{table}:1: expected a column {column!r}, got {', '.join(found) or 'no columns'}{hint}"
            )
    fail(problems)
