"""What is known of a study's trials: their rows, who asked for them first, and what training has cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fl.specs import canonical_json
from harness.plan.keys import federation_key
from harness.tune.quantities import Row

if TYPE_CHECKING:
    from fl.specs import TrialSpec
    from harness.plan.planner import PlannedTrial


class Cost(NamedTuple):
    """Seconds that a federation took to train, by the clock and of CPUs."""

    wall_s: float
    cpu_s: float


@dataclass
class Rows:
    """The rows of one study.

    Attributes:
        study: Its name.
        names: Name of each trial for people, by trial id.
    """

    study: str
    names: dict[str, str] = field(default_factory=dict)
    _complete: dict[str, Row] = field(default_factory=dict)
    _failed: dict[str, str] = field(default_factory=dict)
    _numbers: dict[str, int | None] = field(default_factory=dict)
    _costs: dict[str, Cost] = field(default_factory=dict)

    @classmethod
    def stored(cls, study: str, folder: Path, *, keep_failed: bool) -> Rows:
        """Return what a results folder holds.

        Args:
            study: Name of the study.
            folder: The folder.
            keep_failed: Whether failed trials stay failed, instead of being tried again.
        """
        from harness.results import load

        rows = cls(study)
        if (folder / "trials").is_dir() and any((folder / "trials").iterdir()):
            trials = load(folder, tables=()).trials
            kept = trials[trials["status"].isin(("complete", "failed") if keep_failed else ("complete",))]
            plain = kept.astype(object).where(kept.notna(), None)
            rows.add({str(key): value for key, value in row.items()} for row in plain.to_dict("records"))
        return rows

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take rows of trials that are complete or have failed for good."""
        for row in rows:
            if row["status"] == "complete":
                attack = canonical_json(json.loads(row["spec"])["attack"])
                self._complete[row["trial_id"]] = {**row, "attack_key": attack}
                self._failed.pop(row["trial_id"], None)
            else:
                self._failed[row["trial_id"]] = f"{row['error']} (trial {row['trial_id']})"

    def trained(self, federation: str, cost: Cost) -> None:
        """Keep what the federation with this key has cost."""
        self._costs[federation] = cost

    def ask(self, trial: PlannedTrial, number: int | None) -> None:
        """Note which Optuna trial asks for a trial, None for the reference."""
        self._numbers[trial.trial_id] = number
        who = "reference" if number is None else f"optuna-{number}"
        self.names[trial.trial_id] = f"{who}__{trial.name}"

    def extra(self, trial_id: str, spec: TrialSpec) -> dict[str, Any]:
        """Return a trial's values of `quantities.COLUMNS`."""
        cost = self._costs.get(federation_key(spec)) if spec.federation else None
        return {
            "study": self.study,
            "optuna_trial": self._numbers.get(trial_id),
            "federation_wall_s": cost and cost.wall_s,
            "federation_cpu_s": cost and cost.cpu_s,
        }

    def settled(self, trial_id: str) -> bool:
        """Whether a trial is complete or has failed for good."""
        return trial_id in self._complete or trial_id in self._failed

    def errors(self, trial_ids: Iterable[str]) -> dict[str, str]:
        """Return why trials failed, by the ids of those that did."""
        return {each: self._failed[each] for each in trial_ids if each in self._failed}

    def of(self, trial_ids: Sequence[str]) -> list[Row]:
        """Return the rows of complete trials."""
        return [self._complete[each] for each in trial_ids if each in self._complete]
