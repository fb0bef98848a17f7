"""What a study can ask of a defense, by name, and how it is computed from the rows of its trials."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from harness.analysis.floors import floors
from harness.analysis.measures import TOLD_BY
from harness.metrics import METRICS
from harness.store.schema import UTILITY, Column

if TYPE_CHECKING:
    from harness.tune.settings import LeakageSettings

Row = Mapping[str, Any]
LEAKS_LOWER = frozenset(card.column for card in METRICS if card.leaks_more == "lower")
"""Leakage metrics that are lower the more leaked."""
UTILITIES = tuple(column.name for column in UTILITY)
SPENT = {"seconds_per_round": "federation_wall_s", "cpu_seconds_per_round": "federation_cpu_s"}
"""Costs of training, and the columns that they come from."""

QUANTITIES: Mapping[str, str] = {
    **{column.name: f"mean over seeds: {column.about}" for column in UTILITY},
    "accuracy_drop": "mean over seeds of the accuracy without a defense minus that with it",
    "leakage": "what the strongest tuning attack takes beyond the best floor, as `leakage:` says; at least 0",
    "epsilon": "differential privacy spent, the largest over seeds; infinite without a guarantee",
    "seconds_per_round": "mean over seeds of wall seconds that a round of training took",
    "cpu_seconds_per_round": "likewise, CPU seconds",
    "bytes_up": "mean over seeds of bytes that clients sent until the last round",
}
"""Every quantity, with what it is."""

COLUMNS = (
    Column("study", "str", "name of the study that asked for the trial"),
    Column(
        "optuna_trial",
        "int",
        "number of the first Optuna trial that asked for it; null for trials without a defense",
    ),
    Column("federation_wall_s", "float", "seconds that its federation took to train, where this was seen"),
    Column("federation_cpu_s", "float", "CPU seconds of that"),
)
"""Columns that `trials/` of a study has besides those of every experiment."""


class Unknown(NamedTuple):
    """A quantity that the rows do not give, and why."""

    reason: str


Value = float | Unknown


class Evidence(NamedTuple):
    """The complete rows that a defense is judged by.

    Attributes:
        rows: Of its trials.
        none: Of trials without a defense, under the same seeds.
    """

    rows: Sequence[Row]
    none: Sequence[Row]

    def under(self, seeds: Iterable[int]) -> Evidence:
        """Return what is known under some seeds."""
        kept = set(seeds)
        return Evidence(*([row for row in rows if row["seed"] in kept] for rows in self))


def quantity(name: str, evidence: Evidence, leakage: LeakageSettings) -> Value:
    """Return a quantity of `QUANTITIES` as the rows give it."""
    if name == "leakage":
        return leakage_of(evidence.rows, leakage)
    if name == "accuracy_drop":
        return _drop(evidence)
    if name == "epsilon":
        spent = [row.get("epsilon") for row in evidence.rows]
        return max((float(each) if _known(each) else math.inf for each in spent), default=math.inf)
    if name in SPENT:
        return _per_round(SPENT[name], evidence.rows)
    return _mean(name, by_seed(evidence.rows))


def leakage_of(rows: Sequence[Row], settings: LeakageSettings) -> Value:
    """Return leakage: over attacks and attackers, the largest mean over seeds; at least 0."""
    excesses = excess_by_attack(rows, settings)
    if not excesses and _inverts(settings) and settings.floor == "best":
        return Unknown(
            f"{settings.metric} or its floor is null in every row; name a floor, such as random_prior, under "
            "attacks"
        )
    if not excesses:
        return Unknown(f"{settings.metric} is null in every row")
    means = [fmean(values.values()) for values in excesses.values()]
    return max(0.0, max(means) if settings.aggregate == "max" else fmean(means))


def excess_by_attack(
    rows: Sequence[Row], settings: LeakageSettings, *, beside: Sequence[Row] = ()
) -> dict[tuple[str, str], dict[int, float]]:
    """Return, by attack (its part of the spec) and attacker, what it takes beyond the floor, by seed.

    The rows' values are means over all images of all targets of a trial.

    Args:
        rows: Of complete trials of one defense.
        settings: What leakage is.
        beside: Further rows of that defense, among which there may be floors.
    """
    sign = -1.0 if settings.metric in LEAKS_LOWER else 1.0
    attacks = [row for row in rows if row.get("attack") not in floors()] if _inverts(settings) else rows
    apart = _floors([*rows, *beside], settings)
    found: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in attacks:
        value = row.get(settings.metric)
        own = row.get(f"floor_{settings.metric}", apart.get(row["seed"]))
        floor = own if settings.floor == "best" else 0.0
        if _known(value) and _known(floor):
            found[row["attack_key"], row["attacker"]][row["seed"]] = sign * (value - floor)
    return dict(found)


def _inverts(settings: LeakageSettings) -> bool:
    """Whether leakage is that of models, whose floors are attacks of their own."""
    return settings.metric in TOLD_BY["models"]


def _floors(rows: Iterable[Row], settings: LeakageSettings) -> dict[int, float]:
    """Return what the best floor among some trials has, by seed; none where floors are no trials."""
    best = min if settings.metric in LEAKS_LOWER else max
    found: defaultdict[int, list[float]] = defaultdict(list)
    for row in rows if _inverts(settings) else ():
        value = row.get(settings.metric)
        if row.get("attack") in floors() and _known(value):
            found[row["seed"]].append(value)
    return {seed: best(values) for seed, values in found.items()}


def by_seed(rows: Iterable[Row]) -> dict[int, Row]:
    """Return one row per seed: what is said of the federation is the same in all of them."""
    return {row["seed"]: row for row in reversed(list(rows))}


def _drop(evidence: Evidence) -> Value:
    ours, none = by_seed(evidence.rows), by_seed(evidence.none)
    pairs = [(none[seed].get("accuracy"), ours[seed].get("accuracy")) for seed in ours if seed in none]
    drops = [before - after for before, after in pairs if _known(before) and _known(after)]
    if len(drops) < len(ours) or not drops:
        return Unknown("accuracy is not known with and without the defense under every seed")
    return fmean(drops)


def _mean(name: str, rows: Mapping[int, Row]) -> Value:
    values = [row.get(name) for row in rows.values()]
    known = [float(value) for value in values if _known(value)]
    if len(known) < len(values) or not known:
        return Unknown(f"{name} is null under a seed")
    return fmean(known)


def _per_round(column: str, rows: Sequence[Row]) -> Value:
    spans = {}
    for row in rows:
        if _known(row.get(column)):
            spans[row["seed"]] = float(row[column]) / max(int(row["federation_rounds"]), 1)
    if not spans:
        return Unknown("the federations were trained before this study, or by a driver that died")
    return fmean(spans.values())


def _known(value: Any) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)
