"""`bench report`: an experiment's results on one page that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from fl.errors import UsageError
from harness.analysis.measures import METRICS, require
from harness.cli.output import duration

if TYPE_CHECKING:
    from harness.analysis.measures import Metric
    from harness.report.page import Format


@click.command("report", short_help="Write an experiment's results as one page: HTML or Markdown.")
@click.argument("experiment")
@click.option("--output", "-o", required=True, help="File to write; .md means Markdown.")
@click.option(
    "--format", "form", type=click.Choice(["html", "md"]), help="By default what --output's ending says."
)
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    help="What leakage is measured by, relative to the best floor; by default ssim, of models attack_top1.",
)
@click.option("--include-private", is_flag=True, help="Show pictures of private data, too; says how many.")
def command(
    *, experiment: str, output: str, form: str | None, metric: str | None, include_private: bool
) -> None:
    """Write an experiment's results as one self-contained page: no network, no script.

    Who attacks and what is known, every defense under its strongest attack, the trade-off between leakage
    and utility, leakage over noise budgets, pictures, what failed, cost, versions and sources. Pictures of
    private data are left out, unless the data set's card calls them public. The same results give the same
    page, byte for byte.

    \b
    Examples:
      bench report results/quickstart --output quickstart.html
      bench report results/quickstart -o quickstart.md
      bench report results/hospital -o internal.html --include-private
    """
    import time

    from harness.report.content import gather
    from harness.report.page import render
    from harness.results import load

    began = time.monotonic()
    results = load(experiment, images=True)
    if not (results.trials["status"] == "complete").any():
        raise UsageError(f"expected complete trials in {experiment}, got none; `bench run` makes them")
    asked = cast("Metric | None", metric)
    require(asked, results.trials, experiment)
    report = gather(results, metric=asked, include_private=include_private)
    text = render(report, cast("Format", form or ("md" if output.endswith(".md") else "html")))
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error
    size = len(text.encode()) / 1e6
    click.echo(f"wrote {output} ({size:.1f} MB, {duration(time.monotonic() - began)})", err=True)
    if report.private_shown:
        click.echo(f"it holds {report.private_shown} pictures of private data", err=True)
    elif report.hidden:
        click.echo(f"left out {report.hidden} pictures of private data (--include-private)", err=True)
