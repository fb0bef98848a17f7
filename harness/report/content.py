"""What a report says, gathered from an experiment's rows; how it looks is the templates' business."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fl.data import DATASETS
from harness.analysis.by_round import Course, courses
from harness.analysis.front import Point, front
from harness.analysis.labels import with_labels
from harness.analysis.leakage import Leak, Utility, at_the_end, leaks, utilities, worst
from harness.analysis.measures import MEASURES, SHOWN, Measure, Metric, Seen
from harness.analysis.uncertainty import Estimate
from harness.report import provenance, words
from harness.report.charts import Line, TradeOff, clipped, over_budgets, over_rounds, place, trade_off
from harness.report.inverted import SampleRow, first_seeds, sample_rows
from harness.report.pictures import Album, Row, Strip
from harness.report.rounds import ByRound, by_round

if TYPE_CHECKING:
    import pandas as pd

    from harness.results import Results


SUMMARY = ("psnr_db", "attack_top1", "knn_distance", "evaluator_fid")
"""Columns of measures that the summary shows, where there are any."""


@dataclass(frozen=True)
class Setting:
    """One data set and model.

    Attributes:
        name: For people.
        anchor: For links.
        seen: What the adversary sees.
        measured: Measures that some trial has.
        lines: The summary.
        leaks: Every attack on every defense.
        by_round: Leakage by observed round, for each of its circumstances; none where it is not about rounds.
        conditions: Excess by condition (batch size, of updates the round, ...) where there are several:
            condition, defense, budget, attack, attacker and the mean.
        trade_off: None where utility is unknown or says nothing on this data.
        unranked: Why there is no trade-off although utility is stored, or None.
        budgets: Leakage over budgets, by title.
        rounds: Utility over rounds, or None.
        gallery: Private images beside reconstructions, where updates are seen.
        samples: The first images of the first seeds, where models are seen.
        sampled: Those seeds.
        strips: Progressions.
    """

    name: str
    anchor: str
    seen: Seen
    measured: tuple[Measure, ...]
    lines: tuple[Line, ...]
    leaks: tuple[Leak, ...]
    by_round: tuple[ByRound, ...]
    conditions: tuple[tuple[str, str, float, str, str, Estimate], ...]
    trade_off: TradeOff | None
    unranked: str | None
    budgets: tuple[tuple[str, str], ...]
    rounds: str | None
    gallery: tuple[Row, ...]
    samples: tuple[SampleRow, ...]
    sampled: tuple[int, ...]
    strips: tuple[Strip, ...]

    @property
    def summary(self) -> tuple[Measure, ...]:
        """The measures of the summary."""
        return tuple(measure for measure in self.measured if measure.column in SUMMARY)

    @property
    def beside(self) -> bool:
        """Whether real images stand beside the samples."""
        return any(sample is not None and sample.nearest for row in self.samples for sample in row.samples)


@dataclass(frozen=True)
class Report:
    """All that a page says of an experiment."""

    name: str
    gave: str
    threat_models: tuple[str, ...]
    legend: tuple[tuple[str, str], ...]
    counts: Mapping[str, int]
    seeds: tuple[int, ...]
    settings: tuple[Setting, ...]
    failures: tuple[tuple[str, int], ...]
    not_applicable: tuple[tuple[str, int], ...]
    cost: tuple[tuple[str, int, float, float, int], ...]
    environment: tuple[tuple[str, str], ...]
    command: str
    references: tuple[tuple[str, str, str], ...]
    hidden: int
    private_shown: int


def gather(results: Results, *, metric: Metric | None = None, include_private: bool = False) -> Report:
    """Return what the report says.

    Args:
        results: The experiment, with images.
        metric: What leakage is measured by, in settings where it can be.
        include_private: Whether pictures of private data are shown.
    """
    trials = results.trials.sort_values("trial_id", ignore_index=True)
    labelled = with_labels(trials)
    album = Album(results, include_private=include_private)
    found = leaks(labelled, metric=metric)
    useful = utilities(labelled)
    traced = courses(labelled, results.rounds, metric=metric)
    settings = tuple(
        _setting(
            name,
            index,
            labelled[labelled["setting"] == name],
            [leak for leak in found if leak.setting == name],
            [one for one in useful if one.setting == name],
            traced=[course for course in traced if course.setting == name],
            results=results,
            album=album,
        )
        for index, name in enumerate(dict.fromkeys(leak.setting for leak in found))
    )
    statuses = trials["status"].value_counts()
    return Report(
        name=str(results.manifest.get("name") or trials["experiment"].iloc[0]),
        gave=words.gave({setting.seen for setting in settings}),
        threat_models=tuple(words.threat_models(trials.loc[trials["status"] == "complete", "spec"])),
        legend=tuple(words.legend(found)),
        counts={str(status): int(statuses[status]) for status in sorted(statuses.index)},
        seeds=tuple(sorted(int(seed) for seed in trials["seed"].unique())),
        settings=settings,
        failures=tuple(words.reasons(trials, "failed")),
        not_applicable=tuple(words.reasons(trials, "not_applicable")),
        cost=provenance.cost(labelled),
        environment=provenance.environment(results.manifest, trials),
        command=f"bench run {shlex.quote(str(results.manifest.get('file') or 'matrix.yaml'))}",
        references=provenance.references(trials),
        hidden=album.hidden,
        private_shown=album.private_shown,
    )


def _setting(
    name: str,
    index: int,
    labelled: pd.DataFrame,
    found: Sequence[Leak],
    useful: Sequence[Utility],
    *,
    traced: Sequence[Course],
    results: Results,
    album: Album,
) -> Setting:
    strongest = worst(found)
    by_cell = {(one.defense, one.noise_budget): one for one in useful}
    ranked, apart = _ranked(labelled), _measured_apart(labelled)
    points = [
        Point(place(leak), clipped(leak), by_cell[leak.defense, leak.noise_budget].value.mean)
        for leak in strongest.values()
        if (leak.defense, leak.noise_budget) in by_cell and (leak.defense, leak.noise_budget) not in apart
    ]
    best = {point.name for point in front(points)} if ranked else set()
    lines = tuple(
        Line(
            leak,
            by_cell.get(cell := (leak.defense, leak.noise_budget)),
            place(leak) in best,
            apart.get(cell, ()),
        )
        for leak in strongest.values()
    )
    anchor = f"s{index + 1}"
    unranked = (
        None if ranked else "its images are too few or too alike for a model's accuracy to mean anything"
    )
    complete = labelled[labelled["status"] == "complete"]
    summarised, told = at_the_end(complete), MEASURES[found[0].metric]
    sampled = first_seeds(complete)
    seen: Seen = complete["seen"].iloc[0]
    return Setting(
        name=name,
        anchor=anchor,
        seen=seen,
        measured=tuple(_measured(found, seen)),
        lines=lines,
        leaks=tuple(found),
        by_round=by_round(traced, anchor),
        conditions=_conditions(labelled, found[0].metric),
        trade_off=trade_off(lines, points, complete, told, anchor) if ranked and len(points) > 1 else None,
        unranked=unranked if points else None,
        budgets=over_budgets(found, complete, told, anchor),
        rounds=over_rounds(results.rounds, complete, anchor),
        gallery=tuple(album.gallery(complete, strongest)) if seen == "updates" else (),
        samples=tuple(sample_rows(album, complete, sampled)) if seen == "models" else (),
        sampled=sampled,
        strips=tuple(album.strips(summarised, strongest)),
    )


def _measured(found: Sequence[Leak], seen: Seen) -> Iterator[Measure]:
    for name in SHOWN[seen]:
        if any(name in leak.metrics and leak.metrics[name].values for leak in found):
            yield MEASURES[name]


def _measured_apart(labelled: pd.DataFrame) -> dict[tuple[str, float], tuple[str, ...]]:
    """Return the conditions of each defense and budget where they are not those of `none`, or of most."""
    complete = labelled[labelled["status"] == "complete"]
    cells = complete.groupby(["defense_label", "noise_budget"])["condition"]
    found = {(str(name), float(str(budget))): tuple(sorted(own.unique())) for (name, budget), own in cells}
    undefended = [conditions for (name, _), conditions in found.items() if name == "none"]
    usual = (undefended or [Counter(found.values()).most_common(1)[0][0]])[0]
    return {cell: conditions for cell, conditions in found.items() if conditions != usual}


def _conditions(
    labelled: pd.DataFrame, metric: Metric
) -> tuple[tuple[str, str, float, str, str, Estimate], ...]:
    apart_by = "condition" if labelled["seen"].iloc[0] == "updates" else "circumstances"
    if labelled[apart_by].nunique() < 2:
        return ()
    rows = []
    for condition, apart in labelled.groupby(apart_by):
        for leak in leaks(apart, metric=metric):
            rows.append(
                (str(condition), leak.defense, leak.noise_budget, leak.attack, leak.attacker, leak.excess)
            )
    return tuple(rows)


def _ranked(labelled: pd.DataFrame) -> bool:
    name = labelled["dataset"].iloc[0]
    return name not in DATASETS or DATASETS.get(name).ranked
