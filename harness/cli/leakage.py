"""Leakage so far per defense, added up while trials finish."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean, median
from typing import TYPE_CHECKING, NamedTuple

from harness.cli.output import table
from harness.execute.events import TrialDone

if TYPE_CHECKING:
    from rich.table import Table


class Group(NamedTuple):
    """Trials whose leakage is shown together."""

    dataset: str
    defense: str
    noise_budget: float


class Leakage(NamedTuple):
    """Leakage so far in one group.

    Attributes:
        group: Which.
        trials: Complete trials of attacks (floors not counted).
        psnr_db: Median over them of the median PSNR.
        success_rate: Mean over them of the share of images reconstructed.
        floor_db: The same median for the floor attack that came nearest.
    """

    group: Group
    trials: int
    psnr_db: float | None
    success_rate: float | None
    floor_db: float | None


class Tally:
    """Leakage by data set, defense and noise budget, as trials finish."""

    def __init__(self) -> None:
        self._attacks: dict[Group, list[TrialDone]] = defaultdict(list)
        self._floors: dict[Group, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, done: TrialDone) -> None:
        """Count a trial, if it is complete."""
        if done.status != "complete":
            return
        group = Group(done.dataset or "recorded", done.defense, done.noise_budget)
        if not _is_floor(done.attack):
            self._attacks[group].append(done)
        elif done.psnr_db is not None:
            self._floors[group][done.attack].append(done.psnr_db)

    def rows(self) -> list[Leakage]:
        """Return one row per group, sorted."""
        return [self._row(group) for group in sorted({*self._attacks, *self._floors})]

    def _row(self, group: Group) -> Leakage:
        trials = self._attacks.get(group, [])
        psnr = [trial.psnr_db for trial in trials if trial.psnr_db is not None]
        success = [trial.success_rate for trial in trials if trial.success_rate is not None]
        floors = [median(values) for values in self._floors.get(group, {}).values()]
        return Leakage(
            group,
            len(trials),
            median(psnr) if psnr else None,
            fmean(success) if success else None,
            max(floors, default=None),
        )


def _is_floor(attack: str) -> bool:
    from attacks import ATTACKS

    return attack in ATTACKS and ATTACKS.get(attack).family == "floor"


def leakage_table(rows: list[Leakage]) -> Table:
    """Return leakage so far as a table for people."""
    columns = ("data", "defense", "noise budget", "trials", "median PSNR dB", "success rate", "floor dB")
    cells = [
        (
            row.group.dataset,
            row.group.defense,
            f"{row.group.noise_budget:g}",
            row.trials,
            _number(row.psnr_db, "{:.1f}"),
            _number(row.success_rate, "{:.2f}"),
            _number(row.floor_db, "{:.1f}"),
        )
        for row in rows
    ]
    return table(columns, cells, numbers=columns[2:])


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value)
