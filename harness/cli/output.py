"""Where commands write: tables for people, JSON for machines, both on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPED_WIDTH = 160
"""Columns of a table that is not written to a terminal, where nothing says how wide it may be."""

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON for a machine.")


def console(*, stderr: bool = False) -> Console:
    """Return a console; without a terminal it neither colours nor wraps at 80 columns."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not made.is_terminal:
        made = Console(stderr=stderr, highlight=False, width=PIPED_WIDTH)
    return made


def emit_json(value: Any) -> None:
    """Write `value` as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[str] = ()) -> Table:
    """Return a plain table; columns in `numbers` are right-aligned, None is shown as a dash."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    right = set(numbers)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*("-" if cell is None else escape(str(cell)) for cell in row))
    return made


def duration(seconds: float) -> str:
    """Return a time span in words of at most two units."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole / 86400:.1f} days"


def size(n_bytes: float) -> str:
    """Return a number of bytes in a unit that keeps it short."""
    value, units = float(n_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and units[1:]:
        value, units = value / 1024, units[1:]
    digits = 0 if value >= 10 or units[0] == "B" else 1
    return f"{value:.{digits}f} {units[0]}"
