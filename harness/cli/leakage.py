"""Leakage so far per defense, added up while trials finish."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
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
        attack_top1: Mean over those that invert models of their attack accuracy.
        floor_top1: The same mean for the floor attack that came nearest.
    """

    group: Group
    trials: int
    psnr_db: float | None
    success_rate: float | None
    floor_db: float | None
    attack_top1: float | None
    floor_top1: float | None


class Tally:
    """Leakage by data set, defense and noise budget, as trials finish."""

    def __init__(self) -> None:
        self._attacks: dict[Group, list[TrialDone]] = defaultdict(list)
        self._floors: dict[Group, dict[str, list[TrialDone]]] = defaultdict(lambda: defaultdict(list))

    def add(self, done: TrialDone) -> None:
        """Count a trial, if it is complete."""
        if done.status != "complete":
            return
        group = Group(done.dataset or "recorded", done.defense, done.noise_budget)
        if _is_floor(done.attack):
            self._floors[group][done.attack].append(done)
        else:
            self._attacks[group].append(done)

    def rows(self) -> list[Leakage]:
        """Return one row per group, sorted."""
        return [self._row(group) for group in sorted({*self._attacks, *self._floors})]

    def _row(self, group: Group) -> Leakage:
        trials = self._attacks.get(group, [])
        floors = self._floors.get(group, {}).values()
        return Leakage(
            group,
            len(trials),
            _over(median, (trial.psnr_db for trial in trials)),
            _over(fmean, (trial.success_rate for trial in trials)),
            _over(max, (_over(median, (trial.psnr_db for trial in own)) for own in floors)),
            _over(fmean, (trial.attack_top1 for trial in trials)),
            _over(max, (_over(fmean, (trial.attack_top1 for trial in own)) for own in floors)),
        )


def _over(together: Callable[[list[float]], float], values: Iterable[float | None]) -> float | None:
    """Return known values taken together, None where there are none."""
    known = [value for value in values if value is not None]
    return together(known) if known else None


def _is_floor(attack: str) -> bool:
    from attacks import ATTACKS

    return attack in ATTACKS and ATTACKS.get(attack).family == "floor"


def leakage_table(rows: list[Leakage]) -> Table:
    """Return leakage so far as a table for people, of updates, of models or of both."""
    models = any(row.attack_top1 is not None or row.floor_top1 is not None for row in rows)
    updates = not models or any(row.psnr_db is not None or row.floor_db is not None for row in rows)
    columns = ["data", "defense", "noise budget", "trials"]
    columns += ["median PSNR dB", "success rate", "floor dB"] * updates
    columns += ["attack top-1", "floor top-1"] * models
    return table(columns, [_cells(row, updates=updates, models=models) for row in rows], numbers=columns[2:])


def _cells(row: Leakage, *, updates: bool, models: bool) -> list[str | int | None]:
    cells: list[str | int | None] = [row.group.dataset, row.group.defense, f"{row.group.noise_budget:g}"]
    cells.append(row.trials)
    if updates:
        cells += [_number(row.psnr_db, "{:.1f}"), _number(row.success_rate, "{:.2f}")]
        cells.append(_number(row.floor_db, "{:.1f}"))
    if models:
        cells += [_number(row.attack_top1, "{:.2f}"), _number(row.floor_top1, "{:.2f}")]
    return cells


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value)
