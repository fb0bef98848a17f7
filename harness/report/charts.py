"""What a setting's rows look like drawn: the trade-off, leakage over noise budgets, utility over rounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.analysis.front import Point, hypervolume, knee
from harness.analysis.labels import attack_of, budget_of
from harness.analysis.leakage import Leak, Utility, utility_of
from harness.analysis.measures import Measure
from harness.analysis.uncertainty import clustered_mean
from harness.report import figures, words

if TYPE_CHECKING:
    import pandas as pd

    from fl.cards import NoiseBudget
    from harness.analysis.by_round import Course

MOST_CURVES = 10
"""With more defenses and budgets than this, utility is drawn for each defense's ends only."""


class Line(NamedTuple):
    """A line of the summary: a defense at a budget under its strongest attack.

    Attributes:
        leak: What it leaks.
        utility: What it costs, where that is known.
        on_front: Whether no other line is better in both.
        only: The conditions that it was measured under, where those are not the others'; it is then not
            compared with them.
    """

    leak: Leak
    utility: Utility | None
    on_front: bool
    only: tuple[str, ...] = ()


class TradeOff(NamedTuple):
    """A setting's trade-off between leakage and utility.

    Attributes:
        svg: The picture.
        utility: The measure.
        volumes: Hypervolume of each defense's points together with `none`'s, the largest first.
        knee: Where giving up more utility begins to buy less, or None.
    """

    svg: str
    utility: str
    volumes: tuple[tuple[str, float], ...]
    knee: str | None


def trade_off(
    lines: Sequence[Line], points: Sequence[Point], trials: pd.DataFrame, told: Measure, anchor: str
) -> TradeOff:
    """Return a setting's trade-off.

    Args:
        lines: The summary.
        points: Those of its lines whose utility is known.
        trials: The setting's complete trials, with labels.
        told: What leakage is told by.
        anchor: Begins the picture's name.
    """
    measure = utility_of(trials) or ""
    places = [
        figures.Place(
            line.leak.defense, line.leak.noise_budget, line.leak.excess, line.utility.value, line.on_front
        )
        for line in lines
        if line.utility is not None and not line.only
    ]
    drawn = figures.trade_off(
        places, leakage=told.beyond_floor, utility=measure.replace("_", " "), name=f"{anchor}-trade-off"
    )
    reference = max((point.leakage for point in points), default=1.0)
    reference = 1.0 if told.high == 1.0 else reference * 1.01
    none = [point for point in points if point.name.startswith("none")]
    volumes = {
        line.leak.defense: hypervolume(
            [*none, *(p for p in points if p.name.startswith(f"{line.leak.defense} at"))],
            reference_leakage=reference,
        )
        for line in lines
        if not line.only
    }
    found = knee(points)
    return TradeOff(
        svg=drawn,
        utility=measure,
        volumes=tuple(sorted(volumes.items(), key=lambda pair: (-pair[1], pair[0]))),
        knee=None if found is None else found.name,
    )


def over_budgets(
    found: Sequence[Leak], trials: pd.DataFrame, told: Measure, anchor: str
) -> tuple[tuple[str, str], ...]:
    """Return, for each defense with several budgets, its title and the picture of leakage over them."""
    drawn = []
    undefended = {(leak.attack, leak.attacker): leak for leak in found if leak.defense == "none"}
    for number, defense in enumerate(dict.fromkeys(leak.defense for leak in found)):
        own = [leak for leak in found if leak.defense == defense]
        if len({leak.noise_budget for leak in own}) < 2:
            continue
        curves = []
        for attack, attacker in dict.fromkeys((leak.attack, leak.attacker) for leak in own):
            cells = [leak for leak in own if (leak.attack, leak.attacker) == (attack, attacker)]
            start = undefended.get((attack, attacker)) or undefended.get((attack, "static"))
            off = _off(trials, defense)
            cells = [start._replace(noise_budget=off), *cells] if start and off is not None else cells
            title, budgets = attack_of(attack, attacker), [c.noise_budget for c in cells]
            curves.append(figures.Curve(title, budgets, [c.excess for c in cells]))
        svg = figures.over_budgets(
            curves, budget=_unit(trials, defense), leakage=told.beyond_floor, name=f"{anchor}-b{number}"
        )
        drawn.append((defense, svg))
    return tuple(drawn)


def over_rounds(rounds: pd.DataFrame, trials: pd.DataFrame, anchor: str) -> str | None:
    """Return the picture of utility over rounds by defense; None with fewer than three rounds."""
    measure = utility_of(rounds)
    federations = trials.drop_duplicates("federation_key")
    joined = rounds.drop(columns="noise_budget").merge(
        federations[["federation_key", "defense_label", "noise_budget"]], on="federation_key", how="inner"
    )
    if measure is None or joined["round"].nunique() < 3:
        return None
    curves = []
    cells = joined.groupby(["defense_label", "noise_budget"], sort=True)
    every = list(cells["defense_label"].first().index)
    shown = _ends(every) if len(every) > MOST_CURVES else every
    for defense, budget in shown:
        cell = cells.get_group((defense, budget))
        by_round = [
            (int(str(number)), clustered_mean(at[measure].to_numpy(), at["seed"].tolist()).within(0, 1))
            for number, at in cell.groupby("round")
        ]
        name = str(defense) if defense == "none" else f"{defense} at {budget:g}"
        known = [(number, estimate) for number, estimate in by_round if estimate.values]
        curves.append(figures.Curve(name, [n for n, _ in known], [e for _, e in known]))
    return figures.over_rounds(curves, utility=measure.replace("_", " "), name=f"{anchor}-rounds")


def _ends(cells: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Return each defense's smallest and largest budget."""
    own: dict[str, list[float]] = {}
    for defense, budget in cells:
        own.setdefault(defense, []).append(budget)
    return [
        (defense, budget)
        for defense, budgets in own.items()
        for budget in sorted({min(budgets), max(budgets)})
    ]


def clipped(leak: Leak) -> float:
    """Return the excess, 0 where the attack does not reach the floor."""
    return max(0.0, leak.excess.mean)


def place(leak: Leak | Course) -> str:
    """Return the name of a defense at a budget."""
    return "none" if leak.defense == "none" else f"{leak.defense} at {words.budget(leak.noise_budget)}"


def _budget(trials: pd.DataFrame, label: str) -> NoiseBudget | None:
    spec = trials.loc[trials["defense_label"] == label, "spec"].iloc[0]
    return budget_of(json.loads(spec)["defense"])


def _unit(trials: pd.DataFrame, label: str) -> str:
    budget = _budget(trials, label)
    return "" if budget is None else f"{budget.unit} ({budget.stronger} protects more)"


def _off(trials: pd.DataFrame, label: str) -> float | None:
    budget = _budget(trials, label)
    return None if budget is None else budget.off
