"""What an experiment's rows say together, for people and as JSON: strongest attacks, leakage by round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.analysis.by_round import against_floor, courses, later
from harness.analysis.labels import attack_of, with_labels
from harness.analysis.leakage import leaks, worst
from harness.analysis.measures import MEASURES, Measure
from harness.cli.compare import plain
from harness.cli.output import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from harness.analysis.by_round import Course, Level
    from harness.analysis.leakage import Leak
    from harness.analysis.uncertainty import Estimate
    from harness.results import Results

ALONGSIDE = ("psnr_db", "knn_distance", "evaluator_fid")
"""Measures that leakage by round shows beside what it is told by."""


def print_findings(out: Console, results: Results) -> None:
    """Write what every defense leaks under its strongest attack, and how sure that is; then by round.

    Args:
        out: The terminal.
        results: Trials and rounds.
    """
    labelled = with_labels(results.trials)
    found = list(worst(leaks(labelled)).values())
    several = len({leak.setting for leak in found}) > 1
    for metric in dict.fromkeys(leak.metric for leak in found):
        own = [leak for leak in found if leak.metric == metric]
        out.print()
        out.print(_strongest(own, several=several))
    traced = [course for course in courses(labelled, results.rounds) if course.change]
    for metric in dict.fromkeys(course.told for course in traced):
        followed = [course for course in traced if course.told == metric]
        out.print("\n[bold]by round[/bold]")
        out.print(_by_round(followed, MEASURES[metric]))
        out.print("\n[bold]last round minus first[/bold]")
        out.print(_changes(followed, MEASURES[metric]))


def facts(results: Results) -> dict[str, Any]:
    """Return the same as plain JSON: every attack on every defense, and each of them by round."""
    labelled = with_labels(results.trials)
    return {
        "leakage": [plain(leak) for leak in leaks(labelled)],
        "by_round": [plain(course) for course in courses(labelled, results.rounds)],
    }


def _strongest(found: Sequence[Leak], *, several: bool) -> Table:
    measure = MEASURES[found[0].metric]
    leakage = f"{measure.heading or measure.words} {'above' if measure.sign > 0 else 'below'} floor"
    headings = [*(["data and model"] * several), "defense", "noise budget", "strongest attack", leakage]
    headings += ["95 % interval", "finding", "against none"]
    rows = [
        [
            *([leak.setting] * several),
            leak.defense,
            f"{leak.noise_budget:g}",
            attack_of(leak.attack, leak.attacker),
            _mean(leak.excess, 2),
            _interval(leak.excess, 2),
            leak.finding,
            leak.versus_none,
        ]
        for leak in found
    ]
    return table(headings, rows, numbers=("noise budget", leakage, "95 % interval"))


def _by_round(traced: Sequence[Course], told: Measure) -> Table:
    known = {name for course in traced for name in course.change} - {told.column}
    others = [MEASURES[name] for name in ALONGSIDE if name in known]
    rows = []
    for course in traced:
        for at in course.rounds:
            level = at.levels[told.column]
            rows.append(
                [
                    *_named(course, traced).values(),
                    at.round,
                    _mean(level.value, told.digits),
                    _interval(level.value, told.digits),
                    _mean(level.floor, told.digits),
                    against_floor(level.excess),
                    *(_beside(at.levels.get(other.column), other) for other in others),
                    _mean(at.utility, 3),
                ]
            )
    measured = ["round", told.title, "95 % interval", "floor"]
    along = [other.title for other in others]
    headings = [*_named(traced[0], traced), *measured, "finding", *along, "utility"]
    return table(headings, rows, numbers=["noise budget", *measured, *along, "utility"])


def _changes(traced: Sequence[Course], told: Measure) -> Table:
    rows = [
        [
            *_named(course, traced).values(),
            f"{course.rounds[-1].round} - {course.rounds[0].round}",
            _mean(change := course.change[told.column], told.digits),
            _interval(change, told.digits),
            later(change, told),
        ]
        for course in traced
    ]
    measured = ["rounds", told.title, "95 % interval"]
    headings = [*_named(traced[0], traced), *measured, "finding"]
    return table(headings, rows, numbers=["noise budget", *measured])


def _named(course: Course, among: Sequence[Course]) -> dict[str, str]:
    """Return what a course is of, by heading; what is the same for all of them is left out."""
    context = {"data and model": "setting", "conditions": "circumstances"}
    told = {
        heading: getattr(course, name)
        for heading, name in context.items()
        if len({getattr(other, name) for other in among}) > 1
    }
    budget = f"{course.noise_budget:g}"
    return {
        **told,
        "defense": course.defense,
        "noise budget": budget,
        "attack": attack_of(course.attack, course.attacker),
    }


def _beside(level: Level | None, measure: Measure) -> str | None:
    """Return a measure at a round; nothing in settings where no trial has it."""
    return None if level is None else _mean(level.value, measure.digits)


def _mean(estimate: Estimate | None, digits: int) -> str | None:
    return f"{estimate.mean:.{digits}f}" if estimate is not None and estimate.values else None


def _interval(estimate: Estimate, digits: int) -> str | None:
    return f"{estimate.low:.{digits}f} to {estimate.high:.{digits}f}" if estimate.known else None
