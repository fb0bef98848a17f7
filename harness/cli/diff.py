"""`bench diff`: whether two experiments found the same."""

from __future__ import annotations

import math
from dataclasses import asdict

import click

from fl.errors import UsageError
from harness.cli.output import console, emit_json, json_option, table

MAX_IDS = 5


@click.command("diff", short_help="Compare the results of two experiments, trial by trial.")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Numbers that are no further apart are equal; 0: bit for bit, pictures included.",
)
@json_option
def command(*, first: str, second: str, tolerance: float, as_json: bool) -> int:
    """Compare two experiments, or two runs of one matrix in different places.

    Trials are matched by their ids, which come from their specs: a trial that is in both was asked the same.
    Its status, metrics, utility, images, rounds and snapshots should be equal: bit for bit on the same kind
    of machine, with the same versions; elsewhere numbers differ slightly. Cost and how trials were computed
    may differ; the latter is said, since it explains other differences.

    \b
    Examples:
      bench diff results/quickstart other/quickstart
      bench diff results/quickstart gpu/quickstart --tolerance 0.5
      bench diff results/quickstart results/quickstart2 --json

    Exit codes: 0 the same; 1 different, or an error; 2 usage.
    """
    from harness.differences import differences
    from harness.results import load

    if not math.isfinite(tolerance):
        raise UsageError(f"expected a finite --tolerance, got {tolerance}")
    images = tolerance == 0
    found = differences(load(first, images=images), load(second, images=images), tolerance=tolerance)
    if as_json:
        columns = [one._asdict() for one in found.columns]
        emit_json({"same": found.same, **asdict(found), "columns": columns})
        return 0 if found.same else 1
    out = console()
    out.print(f"{found.common:,} trials in both", markup=False)
    for where, ids in ((first, found.only_first), (second, found.only_second)):
        if ids:
            more = f" and {len(ids) - MAX_IDS:,} more" if len(ids) > MAX_IDS else ""
            out.print(f"{len(ids):,} only in {where}: {', '.join(ids[:MAX_IDS])}{more}", markup=False)
    if found.columns:
        headings = ("table", "column", "rows that differ", "by at most", "first")
        rows = [
            (*one[:3], None if one.largest is None else f"{one.largest:.3g}", one.first)
            for one in found.columns
        ]
        out.print(table(headings, rows, numbers=headings[2:4]))
    if found.made:
        out.print(f"computed differently: {', '.join(found.made)}", markup=False)
    out.print("the same" if found.same else "different", markup=False)
    return 0 if found.same else 1
