"""Leakage round by round: what an attack takes from each observed round, and how that changes.

Means are over the seeds' trials at one round, with intervals over seeds. Everything that compares is paired:
an attack and its floor under the same seed and round, the last and the first round under the same seed. Of
global models, all rounds of a seed are attacked for the same labels with the same draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.analysis.floors import with_floors
from harness.analysis.leakage import attacked, utility_of
from harness.analysis.measures import MEASURES, SHOWN, TOLD_BY, Measure, Metric, metric_of
from harness.analysis.uncertainty import Estimate, clustered_mean

if TYPE_CHECKING:
    import pandas as pd

COURSE = ["setting", "circumstances", "defense_label", "noise_budget", "attack_label", "attacker"]
ALSO = ["defense", "round", "seed", "federation_key", "seen"]


class Level(NamedTuple):
    """A measure at one round.

    Attributes:
        value: Of the attack.
        floor: Of the best floor; without values where there is none.
        ceiling: Of the real images; without values where there is none.
        excess: The attack's beyond the floor's, in the direction that leaks more, paired by seed.
    """

    value: Estimate
    floor: Estimate
    ceiling: Estimate
    excess: Estimate


class AtRound(NamedTuple):
    """What an attack takes from one round.

    Attributes:
        round: Rounds trained until then.
        trials: Complete trials.
        levels: By measure.
        utility: Of the model at that round; None where it is not known.
    """

    round: int
    trials: int
    levels: Mapping[str, Level]
    utility: Estimate | None


class Course(NamedTuple):
    """An attack on a defense at a noise budget, over the observed rounds.

    Attributes:
        setting: Data set and model.
        circumstances: What else differs within the setting besides the round; may be empty.
        defense: Its label.
        noise_budget: In the defense's unit.
        attack: Its label.
        attacker: `static` or `adaptive`.
        told: What leakage is told by.
        rounds: In order.
        change: By measure, its value at the last round minus that at the first, paired by seed; empty with
            one round.
    """

    setting: str
    circumstances: str
    defense: str
    noise_budget: float
    attack: str
    attacker: str
    told: Metric
    rounds: tuple[AtRound, ...]
    change: Mapping[str, Estimate]


def courses(labelled: pd.DataFrame, rounds: pd.DataFrame, *, metric: Metric | None = None) -> list[Course]:
    """Return every attack on every defense, round by round, floors left out.

    Settings that are not about rounds have none: those whose updates were observed in a single round.

    Args:
        labelled: Trials with labels (`labels.with_labels`).
        rounds: The table of rounds.
        metric: As for `leakage.leaks`.
    """
    found = []
    for _, of_setting in attacked(with_floors(labelled)).groupby("setting", sort=False):
        if of_setting["seen"].iloc[0] == "updates" and of_setting["round"].nunique() < 2:
            continue
        told = metric_of(of_setting, metric)
        measures = _measures(of_setting, told)
        yardsticks = [f"{yardstick}_{name}" for name in measures for yardstick in ("floor", "ceiling")]
        read = [name for name in (*COURSE, *ALSO, *measures, *yardsticks) if name in of_setting]
        rows, utility = _with_utility(of_setting[read], rounds)
        for _, course in rows.groupby(COURSE, sort=False, dropna=False):
            found.append(_course(course, told, measures, utility))
    return sorted(found, key=_order)


def against_floor(excess: Estimate) -> str:
    """Say whether an attack takes more than its floor, by a `Level.excess`."""
    if not excess.known:
        return "too few federations" if excess.values else "no floor"
    if excess.low <= 0 <= excess.high:
        return "not told from the floor"
    return "above the floor" if excess.mean > 0 else "below the floor"


def later(change: Estimate, measure: Measure) -> str:
    """Say whether more leaks at the last round than at the first, by a `Course.change`."""
    if not change.known:
        return "too few federations" if change.values else "not measured"
    if change.low <= 0 <= change.high:
        return "not distinguishable"
    return "leaks more later" if change.mean * measure.sign > 0 else "leaks less later"


def _measures(rows: pd.DataFrame, told: Metric) -> list[str]:
    """Return the measures that any trial has, what leakage is told by first."""
    seen = rows["seen"].iloc[0]
    others = dict.fromkeys((*TOLD_BY[seen], *SHOWN[seen]))
    return [told, *(name for name in others if name != told and name in rows and rows[name].notna().any())]


def _with_utility(rows: pd.DataFrame, rounds: pd.DataFrame) -> tuple[pd.DataFrame, str | None]:
    """Return trials with their model's utility at the observed round, and the name of that column."""
    own = rounds[rounds["federation_key"].isin(rows["federation_key"])]
    measure = utility_of(own)
    if measure is None:
        return rows, None
    told = own[["federation_key", "round", measure]].drop_duplicates(["federation_key", "round"])
    return rows.merge(told, on=["federation_key", "round"], how="left"), measure


def _course(rows: pd.DataFrame, told: Metric, measures: Sequence[str], utility: str | None) -> Course:
    first = rows.iloc[0]
    return Course(
        setting=first["setting"],
        circumstances=first["circumstances"],
        defense=first["defense_label"],
        noise_budget=float(first["noise_budget"]),
        attack=first["attack_label"],
        attacker=first["attacker"],
        told=told,
        rounds=tuple(
            AtRound(
                int(str(number)),
                len(at),
                {name: _level(at, name) for name in measures},
                None if utility is None else _mean(at, at[utility]).within(0, 1),
            )
            for number, at in rows.groupby("round")
        ),
        change=dict(_changes(rows, measures)),
    )


def _level(rows: pd.DataFrame, name: str) -> Level:
    measure = MEASURES[name]
    unknown = rows[name] * float("nan")
    floor = rows.get(f"floor_{name}", unknown)
    ceiling = rows.get(f"ceiling_{name}", unknown)
    return Level(
        value=_mean(rows, rows[name]).within(measure.low, measure.high),
        floor=_mean(rows, floor).within(measure.low, measure.high),
        ceiling=_mean(rows, ceiling).within(measure.low, measure.high),
        excess=_mean(rows, measure.sign * (rows[name] - floor)).within(*measure.span),
    )


def _mean(rows: pd.DataFrame, values: pd.Series[float]) -> Estimate:
    return clustered_mean(values.to_numpy(dtype=float), rows["seed"].tolist())


def _changes(rows: pd.DataFrame, measures: Sequence[str]) -> Iterator[tuple[str, Estimate]]:
    first, last = rows["round"].min(), rows["round"].max()
    if first == last:
        return
    for name in measures:
        by_seed = rows.pivot_table(index="seed", columns="round", values=name, aggfunc="mean", dropna=False)
        change = by_seed[last] - by_seed[first]
        estimate = clustered_mean(change.to_numpy(dtype=float), change.index.tolist())
        yield name, estimate.within(*MEASURES[name].span)


def _order(course: Course) -> tuple[str, str, bool, str, float, str, str]:
    return (
        course.setting,
        course.circumstances,
        course.defense != "none",
        course.defense,
        course.noise_budget,
        course.attack,
        course.attacker,
    )
