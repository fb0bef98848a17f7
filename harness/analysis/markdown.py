"""Means and tables as the studies' pages show them, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.analysis.uncertainty import Estimate


def shown(estimate: Estimate, digits: int, *, factor: float = 1.0) -> str:
    """Return a mean, with its interval where there is one.

    Args:
        estimate: The mean.
        digits: Behind the point.
        factor: What numbers are multiplied by.
    """
    numbers = [f"{factor * number:.{digits}f}" for number in (estimate.mean, estimate.low, estimate.high)]
    return f"{numbers[0]} ({numbers[1]} to {numbers[2]})" if estimate.known else numbers[0]


def table(head: Sequence[str], numbers: int, rows: Sequence[Sequence[str]], *, after: int = 0) -> str:
    """Return a table.

    Args:
        head: What its columns are called.
        numbers: How many columns are set to the right.
        rows: Their cells.
        after: How many columns come after those.
    """
    sides = ["---"] * (len(head) - numbers - after) + ["--:"] * numbers + ["---"] * after
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, sides, *rows))
