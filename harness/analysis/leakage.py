"""Leakage and utility of every defense at every noise budget, over targets and seeds.

Means are over trials, which have the same number of targets; seeds are resampled as wholes, since trials of
one seed attack the same images of the same clients. Within a setting, conditions (rounds, batch sizes) are
taken together unless they are asked for apart; of model inversion only the last observed round counts, whose
model is the one that was made to be used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from harness.analysis.floors import floors, with_floors
from harness.analysis.measures import MEASURES, SHOWN, Metric, metric_of
from harness.analysis.uncertainty import Estimate, Verdict, clustered_mean, holm, verdict

if TYPE_CHECKING:
    import pandas as pd

UTILITIES = ("accuracy", "balanced_accuracy", "macro_f1", "auroc")
CELL = ("setting", "defense_label", "noise_budget", "attack_label", "attacker")
READ = ("success_rate", "floor_success_rate", "psnr_db_max", "n_targets", "condition", "seed", "defense")
"""Columns of a cell's trials that its leak is made from, besides `CELL` and metrics."""
Finding = Literal[
    "leakage shown", "some images leaked", "no leakage shown", "too few federations", "not measured"
]


class Leak(NamedTuple):
    """One attack on one defense at one noise budget.

    Attributes:
        setting: Data set and model.
        defense: Its label.
        noise_budget: In the defense's unit; 0 for `none`.
        attack: Its label.
        attacker: `static` or `adaptive`.
        trials: Complete trials.
        targets: Targets of them all.
        excess: The metric beyond the best floor's on the same targets, in the direction that leaks more.
        metrics: Means of `SHOWN`, where the rows have them.
        floor: Mean of the best floor's metric.
        worst_psnr_db: PSNR of the image that leaked most.
        finding: Whether the attack took anything that a floor does not have: on average, or (in dB) of more
            images than the floor has by chance. `not measured`: nothing to compare with.
        versus_none: Paired with the same attack on no defense, adjusted for all comparisons in the setting.
        difference: That paired difference of the metric, defense minus none; None for `none` itself.
        metric: What `excess`, `floor` and `difference` are told by.
    """

    setting: str
    defense: str
    noise_budget: float
    attack: str
    attacker: str
    trials: int
    targets: int
    excess: Estimate
    metrics: Mapping[str, Estimate]
    floor: float
    worst_psnr_db: float
    finding: Finding
    versus_none: Verdict | None
    difference: Estimate | None
    metric: Metric


class Utility(NamedTuple):
    """What a defense at one noise budget leaves of utility.

    Attributes:
        setting: Data set and model.
        defense: Its label.
        noise_budget: In the defense's unit.
        value: Of the measure of `utility_of`.
        drop: `none`'s minus this one's, paired by seed and condition; None without `none`.
    """

    setting: str
    defense: str
    noise_budget: float
    value: Estimate
    drop: Estimate | None


def attacked(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the complete trials of attacks, floors left out."""
    return trials[(trials["status"] == "complete") & ~trials["attack"].isin(floors())]


def at_the_end(rows: pd.DataFrame) -> pd.DataFrame:
    """Return trials without those that invert models of earlier rounds than the last observed one."""
    inverted = rows["seen"] == "models"
    if not inverted.any():
        return rows
    last = rows.groupby(["setting", "circumstances"])["round"].transform("max")
    return rows[~inverted | (rows["round"] == last)]


def leaks(labelled: pd.DataFrame, *, metric: Metric | None = None) -> list[Leak]:
    """Return every attack on every defense, in the order of settings, defenses, budgets and attacks.

    Args:
        labelled: Trials with labels (`labels.with_labels`).
        metric: What leakage is measured by, in settings where it can be; by default the first of
            `measures.TOLD_BY`.
    """
    found = []
    rows = at_the_end(attacked(with_floors(labelled)))
    for _, of_setting in rows.groupby("setting", sort=False):
        told = metric_of(of_setting, metric)
        wanted = dict.fromkeys((*CELL, *READ, told, f"floor_{told}", *SHOWN[of_setting["seen"].iloc[0]]))
        read = [name for name in wanted if name in of_setting]
        none = _undefended(of_setting, told)
        cells = of_setting[read].groupby(list(CELL), sort=False, dropna=False)
        found += _judged([_leak(cell, none, told) for _, cell in cells], told)
    return sorted(found, key=_order)


def utilities(labelled: pd.DataFrame) -> list[Utility]:
    """Return the utility of every defense at every budget; each federation counts once."""
    complete = labelled[labelled["status"] == "complete"]
    found = []
    for setting, of_setting in complete.groupby("setting", sort=False):
        measure = utility_of(of_setting)
        if measure is None:
            continue
        read = ["defense", "defense_label", "noise_budget", "federation_key", "condition", "seed", measure]
        rows = of_setting[read].drop_duplicates(["federation_key", "condition"])
        none = rows[rows["defense"] == "none"]
        for _, cell in rows.groupby(["defense_label", "noise_budget"], sort=False):
            first, once = cell.iloc[0], cell.drop_duplicates("federation_key")
            value = clustered_mean(once[measure].to_numpy(), once["seed"].tolist()).within(0, 1)
            drop = None if first["defense"] == "none" else _drop(cell, none, measure)
            found.append(
                Utility(str(setting), first["defense_label"], float(first["noise_budget"]), value, drop)
            )
    return sorted(found, key=lambda one: (one.setting, one.defense != "none", one.defense, one.noise_budget))


def utility_of(trials: pd.DataFrame) -> str | None:
    """Return the first measure of `UTILITIES` that the trials have."""
    return next((name for name in UTILITIES if name in trials and trials[name].notna().any()), None)


def worst(found: Sequence[Leak]) -> dict[tuple[str, str, float], Leak]:
    """Return, by setting, defense and budget, the attack with the largest excess."""
    most: dict[tuple[str, str, float], Leak] = {}
    for one in found:
        key = (one.setting, one.defense, one.noise_budget)
        if key not in most or one.excess.mean > most[key].excess.mean or not most[key].excess.values:
            most[key] = one
    return most


def _leak(
    cell: pd.DataFrame, none: Mapping[tuple[str, str], pd.Series[float]], metric: Metric
) -> tuple[Leak, float]:
    """Return a leak that is not judged yet against `none`, and the p-value of its difference."""
    seeds = cell["seed"].tolist()
    told = MEASURES[metric]
    beyond = told.sign * (cell[metric] - cell[f"floor_{metric}"])
    excess = clustered_mean(beyond.to_numpy(), seeds).within(*told.span)
    first = cell.iloc[0]
    difference = None if first["defense"] == "none" else _difference(cell, none, metric)
    leak = Leak(
        setting=first["setting"],
        defense=first["defense_label"],
        noise_budget=float(first["noise_budget"]),
        attack=first["attack_label"],
        attacker=first["attacker"],
        trials=len(cell),
        targets=int(cell["n_targets"].sum()),
        excess=excess,
        metrics={
            name: clustered_mean(cell[name].to_numpy(), seeds).within(shown.low, shown.high)
            for name, shown in MEASURES.items()
            if name in cell
        },
        floor=float(cell[f"floor_{metric}"].mean()),
        worst_psnr_db=float(cell["psnr_db_max"].max()),
        finding=_finding(excess, cell),
        versus_none=None,
        difference=difference,
        metric=metric,
    )
    return leak, float("nan") if difference is None else difference.p_value


def _judged(cells: Sequence[tuple[Leak, float]], metric: Metric) -> list[Leak]:
    adjusted = holm([p_value for _, p_value in cells])
    return [
        leak
        if leak.difference is None
        else leak._replace(
            versus_none=verdict(leak.difference, p_value, leaks_more=MEASURES[metric].leaks_more)
        )
        for (leak, _), p_value in zip(cells, adjusted, strict=True)
    ]


def _finding(excess: Estimate, cell: pd.DataFrame) -> Finding:
    """Judge on the safe side: an attack that fails on average may still have taken some images."""
    if excess.known and excess.low > 0:
        return "leakage shown"
    if cell["success_rate"].mean() > cell["floor_success_rate"].mean():
        return "some images leaked"
    if not excess.values:
        return "not measured"
    return "no leakage shown" if excess.known else "too few federations"


def _undefended(rows: pd.DataFrame, metric: Metric) -> dict[tuple[str, str], pd.Series[float]]:
    """Return the metric without a defense by attack and attacker, indexed by condition and seed."""
    none = rows[rows["defense"] == "none"]
    return {
        (str(attack), str(attacker)): own.set_index(["condition", "seed"])[metric]
        for (attack, attacker), own in none.groupby(["attack_label", "attacker"])
    }


def _difference(
    cell: pd.DataFrame, none: Mapping[tuple[str, str], pd.Series[float]], metric: Metric
) -> Estimate | None:
    """Return defense minus none, trial by trial on the same targets, under the same attack."""
    attack, attacker = cell["attack_label"].iloc[0], cell["attacker"].iloc[0]
    others = none.get((attack, attacker))
    if others is None:
        others = none.get((attack, "static"))  # without a defense there is nothing to know of it
    if others is None:
        return None
    own = cell.set_index(["condition", "seed"])[metric]
    paired = (own - others.reindex(own.index)).dropna()
    if not len(paired):
        return None
    return clustered_mean(paired.to_numpy(), paired.index.get_level_values("seed").tolist())


def _drop(cell: pd.DataFrame, none: pd.DataFrame, measure: str) -> Estimate | None:
    same, compared = ["condition", "seed"], ["federation_key", measure]
    pairs = cell[[*same, *compared]].merge(none[[*same, *compared]], on=same, suffixes=("", "_none"))
    pairs = pairs.drop_duplicates(["federation_key", "federation_key_none"])
    if not len(pairs):
        return None
    return clustered_mean((pairs[f"{measure}_none"] - pairs[measure]).to_numpy(), pairs["seed"].tolist())


def _order(leak: Leak) -> tuple[str, bool, str, float, str, str]:
    return (leak.setting, leak.defense != "none", leak.defense, leak.noise_budget, leak.attack, leak.attacker)
