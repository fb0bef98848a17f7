"""Labels in the cells of a table, read without torch or numpy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Label = int | tuple[int, ...]
"""A class, or one 0/1 entry per output (multilabel)."""

Uncertain = Literal["zeros", "ones", "drop"]
"""What an uncertain label (-1) stands for: absent, present, or a reason to leave the image out.

Source: Irvin et al. 2019 (CheXpert, arXiv 1901.07031): U-Zeros and U-Ones; their U-Ignore leaves
only the uncertain label out, `drop` the image, since a loss over all outputs needs all labels.
"""

_VALUES = {"": 0, "0": 0, "0.0": 0, "1": 1, "1.0": 1}
_UNCERTAIN = frozenset({"-1", "-1.0"})


def flag(cell: str, uncertain: Uncertain | None) -> int | None:
    """Return the 0 or 1 that a cell holds (nothing: 0), or None for an uncertain one that is dropped.

    Raises:
        ValueError: If it holds something else, or -1 and no policy says what that means.
    """
    if cell in _UNCERTAIN and uncertain is not None:
        return {"zeros": 0, "ones": 1, "drop": None}[uncertain]
    if cell not in _VALUES:
        more = "; -1 needs uncertain: zeros, ones or drop" if cell in _UNCERTAIN else ""
        allowed = "1, 0, nothing" if uncertain is None else "1, 0, -1, nothing"
        raise ValueError(f"expected {allowed}, got {cell!r}{more}")
    return _VALUES[cell]


def flags(
    cells: Iterable[tuple[str, str]], *, origin: str, uncertain: Uncertain | None, problems: list[str]
) -> tuple[int, ...] | None:
    """Return the entry of each (column, cell); None if the image is to be left out or a cell is wrong.

    Args:
        cells: Columns with what they hold.
        origin: The row, for messages.
        uncertain: What -1 stands for; None: it is a mistake.
        problems: Gets a line for every wrong cell.
    """
    values = []
    for column, cell in cells:
        try:
            values.append(flag(cell, uncertain))
        except ValueError as error:
            values.append(None)
            problems.append(f"{origin}: column {column!r}: {error}")
    entries = tuple(value for value in values if value is not None)
    return entries if len(entries) == len(values) else None


def names(cell: str, separator: str) -> frozenset[str]:
    """Return the names in a cell."""
    return frozenset(name.strip() for name in cell.split(separator)) - {""}
