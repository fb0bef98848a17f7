"""Leakage by round: a table, what changed from the first round to the last, and pictures of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.analysis.by_round import Course, Level
from harness.analysis.measures import MEASURES, SHOWN, TOLD_BY, Measure, Metric
from harness.report import figures, words
from harness.report.charts import place

if TYPE_CHECKING:
    from harness.analysis.uncertainty import Estimate

MOST_ROWS = 60
"""A longer table is folded."""


class ByRound(NamedTuple):
    """Leakage by round within a setting, under one set of circumstances.

    Attributes:
        circumstances: What tells it from others of the setting; may be empty.
        told: What leakage is told by.
        measures: What its tables show, `told` first.
        details: Further measures of the folded table.
        courses: Every attack on every defense.
        drawn: Title and picture of each measure over rounds; none with a single round.
    """

    circumstances: str
    told: Measure
    measures: tuple[Measure, ...]
    details: tuple[Measure, ...]
    courses: tuple[Course, ...]
    drawn: tuple[tuple[str, str], ...]

    @property
    def folded(self) -> bool:
        """Whether the table is too long to stand open."""
        return sum(len(course.rounds) for course in self.courses) > MOST_ROWS


def by_round(courses: Sequence[Course], anchor: str) -> tuple[ByRound, ...]:
    """Return a setting's leakage by round, for each of its circumstances.

    Args:
        courses: The setting's courses.
        anchor: Begins the pictures' names.
    """
    found = []
    for number, circumstances in enumerate(dict.fromkeys(course.circumstances for course in courses)):
        own = tuple(course for course in courses if course.circumstances == circumstances)
        known = [MEASURES[name] for name in own[0].rounds[0].levels]
        lead = tuple(measure for measure in known if measure.column in _side(own[0].told))
        rounds = tuple(sorted({at.round for course in own for at in course.rounds}))
        drawn = _drawn(own, lead, f"{anchor}-t{number}") if len(rounds) > 1 else ()
        details = tuple(measure for measure in known if measure not in lead)
        found.append(ByRound(circumstances, lead[0], lead, details, own, tuple(drawn)))
    return tuple(found)


def _side(told: Metric) -> tuple[Metric, ...]:
    """Return what leakage can be told by where it is told by `told`."""
    return next(possible for possible in TOLD_BY.values() if told in possible)


def _drawn(courses: Sequence[Course], measures: Sequence[Measure], anchor: str) -> Iterator[tuple[str, str]]:
    for measure in measures:
        plots = [
            _panel(name, [course for course in courses if place(course) == name], measure.column)
            for name in dict.fromkeys(place(course) for course in courses)
        ]
        if plots := [plot for plot in plots if plot.curves]:
            y = ", ".join(filter(None, (measure.words, measure.unit)))
            drawn = figures.panels(
                plots, x="rounds trained", y=y, from_zero=measure.low == 0, name=f"{anchor}-{measure.column}"
            )
            yield measure.words, drawn


def _panel(name: str, courses: Sequence[Course], column: str) -> figures.Panel:
    curves = [_curve(words.attack(course), course, column, lambda level: level.value) for course in courses]
    fullest = max(courses, key=lambda course: sum(at.levels[column].floor.values for at in course.rounds))
    marks = [_curve("floor", fullest, column, lambda level: level.floor)]
    if column in SHOWN["models"]:
        marks.append(_curve("ceiling", fullest, column, lambda level: level.ceiling))
    return figures.Panel(name, *([curve for curve in each if curve.x] for each in (curves, marks)))


def _curve(name: str, course: Course, column: str, part: Callable[[Level], Estimate]) -> figures.Curve:
    known = [(at.round, part(at.levels[column])) for at in course.rounds]
    known = [(number, estimate) for number, estimate in known if estimate.values]
    return figures.Curve(name, [number for number, _ in known], [estimate for _, estimate in known])
