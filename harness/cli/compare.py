"""`bench compare`: defenses at the same cost, each at the noise budget that loses a given accuracy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import click

from fl.errors import UsageError
from harness.analysis.measures import METRICS, require
from harness.cli.output import console, emit_json, json_option, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table

    from harness.analysis.iso_utility import IsoUtility
    from harness.analysis.measures import Metric
    from harness.analysis.uncertainty import Estimate

HEADINGS = ("defense", "accuracy drop", "noise budget", "from", "to", "drop there", "leakage there", "note")


@click.command("compare", short_help="Compare defenses at the same loss of accuracy.")
@click.argument("experiment")
@click.option(
    "--accuracy-drop",
    "drops",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=(0.01, 0.05),
    show_default=True,
    help="The loss to compare at, as a share; may be given several times.",
)
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    help="What leakage is measured by, relative to the best floor; by default ssim, of models attack_top1.",
)
@json_option
def command(*, experiment: str, drops: Sequence[float], metric: str | None, as_json: bool) -> int:
    """Show, for every defense, the noise budget that costs a given accuracy and what leaks there.

    Accuracy is compared with `none` seed by seed; leakage is that of the strongest attack, beyond the best
    floor. Intervals cover 95 %. Between two budgets that were tried, budget and leakage are interpolated, and
    the note says so; where the interval of the loss is wider than the loss itself there is no answer, and the
    note says how many test images there would have to be.

    \b
    Examples:
      bench compare results/quickstart --accuracy-drop 0.01
      bench compare results/shadowdef --accuracy-drop 0.01 --accuracy-drop 0.05 --metric psnr_db
    """
    from harness.analysis.iso_utility import curves
    from harness.analysis.labels import with_labels
    from harness.results import load

    trials = load(experiment, tables=()).trials
    if not (trials["status"] == "complete").any():
        raise UsageError(f"expected complete trials in {experiment}, got none; `bench run` makes them")
    complete = trials[trials["status"] == "complete"].reset_index(drop=True)
    asked = cast("Metric | None", metric)
    require(asked, complete, experiment)
    found = [curve.at(drop) for curve in curves(with_labels(complete), metric=asked) for drop in drops]
    if as_json:
        emit_json([plain(one) for one in found])
    elif not found:
        raise UsageError(f"expected a defense other than none in {experiment}, got none")
    else:
        out = console()
        for setting in dict.fromkeys(one.setting for one in found):
            out.print(f"[bold]{setting}[/bold]")
            out.print(iso_table([one for one in found if one.setting == setting]))
    return 0


def iso_table(found: Iterable[IsoUtility]) -> Table:
    """Return defenses at equal cost as a table for people."""
    rows = [
        (
            one.defense,
            f"{one.accuracy_drop:.1%}",
            number(one.noise_budget),
            number(one.low),
            number(one.high),
            interval(one.drop),
            interval(one.leakage),
            note(one),
        )
        for one in found
    ]
    return table(HEADINGS, rows, numbers=HEADINGS[1:5])


def note(one: IsoUtility) -> str:
    """Return what is to be said of an answer."""
    words: list[str] = [] if one.finding == "found" else [one.finding]
    if one.finding == "not resolvable with this data" and one.test_images:
        words = [f"{one.finding} (needs {one.test_images:,} test images)"]
    if one.between is not None:
        words.append(f"interpolated between {one.between[0]:.4g} and {one.between[1]:.4g}")
    if one.label not in (None, one.defense):
        words.append(str(one.label))
    return "; ".join(words)


def interval(estimate: Estimate | None) -> str | None:
    """Return an estimate with its interval."""
    if estimate is None or math.isnan(estimate.mean):
        return None
    if not estimate.known:
        return f"{estimate.mean:.4f}"
    return f"{estimate.mean:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def number(value: float | None) -> str | None:
    """Return a number as tables show it."""
    return None if value is None or math.isnan(value) else f"{value:.4g}"


def plain(value: Any) -> Any:
    """Return named tuples as mappings and what is no number as null, for JSON."""
    if hasattr(value, "_asdict"):
        return {name: plain(each) for name, each in value._asdict().items()}
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
