"""Rows from what is stored: a trial's spec, its result and its federation's history; no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attacks.catalog import ENGINE_VERSION
from harness.execute.results import SCORE_VERSION, Row, load_result, result_key
from harness.plan.columns import ColumnType, as_columns, flatten
from harness.plan.keys import federation_key
from harness.store.experiment import TrialRows

if TYPE_CHECKING:
    from fl.specs import TrialSpec
    from harness.execute.work import Failure, Trial
    from harness.store.artifacts import ArtifactStore

UTILITY = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "loss")
SPENT = ("epsilon", "delta", "privacy_unit", "accountant")


def _nothing_extra(trial_id: str, spec: TrialSpec) -> Row:
    return {}


class RowMaker:
    """Makes the rows of one experiment.

    Attributes:
        store: The artifact store.
        experiment: The experiment's name.
        columns: The columns that the matrix's specs fill, with their types.
        names: Name of each trial's cell, by trial id.
        extra: From a trial's id and spec to columns of this experiment that its spec does not fill.
    """

    def __init__(
        self,
        store: ArtifactStore,
        *,
        experiment: str,
        columns: Mapping[str, ColumnType],
        names: Mapping[str, str],
        extra: Callable[[str, TrialSpec], Row] = _nothing_extra,
    ) -> None:
        self.store = store
        self.experiment = experiment
        self.columns = columns
        self.names = names
        self.extra = extra
        self._histories: dict[str, list[Row]] = {}
        self._told: set[str] = set()

    def has_result(self, trial: Trial) -> bool:
        """Whether the trial is solved and scored."""
        return self.store.has(result_key(trial.trial_id))

    def has_federation(self, trial: Trial) -> bool:
        """Whether the trial's federation is trained to the end, or it has none."""
        if trial.spec.federation is None:
            return True
        key = federation_key(trial.spec)
        return key in self._histories or self.store.has(key)

    def available(self, trial: Trial) -> bool:
        """Whether everything that the trial's row needs is stored."""
        return self.has_federation(trial) and self.has_result(trial)

    def complete(self, trial: Trial, *, attempts: int) -> TrialRows:
        """Return the rows of a trial whose artifacts are stored."""
        result = load_result(self.store, trial.trial_id)
        usage = {name: getattr(result.usage, name) for name in ("wall_s", "cpu_s", "gpu_s", "peak_mem_mib")}
        row = {
            **self._base(trial.trial_id, trial.spec, status="complete", attempts=attempts),
            "score_version": SCORE_VERSION,
            **result.columns,
            **usage,
            **self._utility(trial),
        }
        return TrialRows(
            trial=row,
            reconstructions=[{"trial_id": trial.trial_id, **r} for r in result.reconstructions],
            traces=[{"trial_id": trial.trial_id, **r} for r in result.traces],
            rounds=self._rounds(trial),
        )

    def failed(self, trial: Trial, failure: Failure, *, attempts: int) -> TrialRows:
        """Return the row of a trial that is given up."""
        row = self._base(trial.trial_id, trial.spec, status="failed", attempts=attempts)
        error = {"error": failure.error, "traceback": failure.traceback or None}
        return TrialRows(trial={**row, **error})

    def not_applicable(self, trial: Trial, reason: str, *, name: str) -> TrialRows:
        """Return the row of a trial that means nothing."""
        row = self._base(trial.trial_id, trial.spec, status="not_applicable", attempts=0)
        return TrialRows(
            trial={**row, "name": name, "error": reason}, reconstructions=[], traces=[], rounds=[]
        )

    def _base(self, trial_id: str, spec: TrialSpec, *, status: str, attempts: int) -> Row:
        return {
            **as_columns(flatten(spec), self.columns),
            **self.extra(trial_id, spec),
            "trial_id": trial_id,
            "experiment": self.experiment,
            "name": self.names.get(trial_id),
            "status": status,
            "attempts": attempts,
            "spec": spec.canonical,
            "engine_version": ENGINE_VERSION,
            "federation_key": None if spec.federation is None else federation_key(spec),
            "finished": datetime.now(UTC),
        }

    def _history(self, trial: Trial) -> list[Row]:
        key = federation_key(trial.spec)
        if key not in self._histories:
            data: Any = self.store.read_json(key)
            self._histories[key] = data["rounds"]
        return self._histories[key]

    def _utility(self, trial: Trial) -> Row:
        """Return the utility after the last round, with what was spent and sent until then."""
        if trial.spec.federation is None:
            return {}
        history = self._history(trial)
        last = history[-1]
        sent = [row["bytes_up"] for row in history if row.get("bytes_up") is not None]
        return {
            **{name: last.get(name) for name in (*UTILITY, *SPENT)},
            "bytes_up": sum(sent) if sent else 0,
        }

    def _rounds(self, trial: Trial) -> list[Row]:
        if trial.spec.federation is None:
            return []
        key = federation_key(trial.spec)
        if key in self._told:
            return []
        self._told.add(key)
        return [{**row, "federation_key": key, "seed": trial.spec.seed} for row in self._history(trial)]
