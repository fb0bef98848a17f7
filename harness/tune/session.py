"""One `bench tune`: from a tune file to its results folder, under the experiment's lock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attacks.engine.table import chosen_by_user, current, using
from harness.execute.driver import RunLoop, RunOptions
from harness.execute.executor import DeviceChoice, Executor, LaneSettings
from harness.execute.rows import RowMaker
from harness.execute.session import MatrixLimits, Stores, manifest
from harness.plan.columns import columns_of, flatten_stored
from harness.plan.planner import make_plan
from harness.store.artifacts import ArtifactStore
from harness.store.experiment import Experiment
from harness.tune.events import TuneResult
from harness.tune.evidence import Rows
from harness.tune.quantities import COLUMNS

if TYPE_CHECKING:
    from harness.tune.document import Tuning
    from harness.tune.events import TuneListener
    from harness.tune.tuner import Tuner


@dataclass(frozen=True)
class TuneRequest:
    """What the user asked for.

    Attributes:
        tuning: The tune file.
        results: Folder of all experiments; the study's is `<results>/<name>`.
        executor: From the lanes' settings to the executor.
        device: Where lanes compute.
        trials: Optuna trials; None for the file's own word.
        limit: Largest number of trials of the harness to run.
        keep_failed: Leave failed trials as they are instead of trying them again.
        max_failures: Stop once more trials than this have failed; None for the file's own word.
    """

    tuning: Tuning
    results: Path
    executor: Callable[[LaneSettings], Executor]
    device: DeviceChoice = "auto"
    trials: int | None = None
    limit: int | None = None
    keep_failed: bool = False
    max_failures: int | None = None


def run_tuning(request: TuneRequest, listener: TuneListener) -> tuple[TuneResult, Tuner]:
    """Run what the study still needs; return how that ended, and the study.

    Raises:
        UsageError: If the request cannot be served (data, journal, store, lock, device, Ray); nothing is run
            then.
    """
    tuning, table = request.tuning, chosen_by_user()
    plan = make_plan(tuning.template, {})
    folder = request.results / tuning.name
    declared = {column.name: column.kind for column in COLUMNS}
    columns = {**columns_of(tuning.template), **declared}
    experiment = Experiment.open(folder, columns=columns, resolve=flatten_stored)
    with experiment.lock():
        experiment.recover()
        stores = Stores.of(tuning.template, folder)
        known = Rows.stored(tuning.name, folder, keep_failed=request.keep_failed)
        tuner = _tuner(request, folder, known, listener)
        if (standing := tuner.standing).told:
            listener.resumed(standing)
        first = tuner.more()
        text = None if table is None else table.text
        executor = request.executor(LaneSettings(stores.artifacts, stores.private, request.device, text))
        rows = RowMaker(
            ArtifactStore(stores.artifacts),
            experiment=tuning.name,
            columns=plan.axis_columns,
            names=known.names,
            extra=known.extra,
        )
        loop = RunLoop(experiment, executor, rows, _options(request, tuner), listener, tuner)
        try:
            if first:
                executor.start([*(t.spec for t in plan.todo), *(t.spec for t in first)])
            experiment.begin({**manifest(plan, stores), "tune": tuning.plain()})
            with using(table or current()):
                run = loop.run(first)
        finally:
            executor.close()
        experiment.compact_if_needed()
    states = Counter(a.decision.state for a in tuner.attempts.values() if a.told and a.decision is not None)
    return TuneResult(run, dict(states), tuner.left, tuner.finished), tuner


def _tuner(request: TuneRequest, folder: Path, known: Rows, listener: TuneListener) -> Tuner:
    from harness.tune.journal import open_study
    from harness.tune.tuner import Tuner

    study = open_study(folder, request.tuning)
    wanted = request.trials or request.tuning.study.trials
    return Tuner(request.tuning, study, known, wanted, listener, request.limit, request.keep_failed)


def _options(request: TuneRequest, tuner: Tuner) -> RunOptions:
    template, allowed = request.tuning.template, request.max_failures
    if allowed is None:
        allowed = template.settings.allowed_failures(trials_at_most(request.tuning, tuner.wanted))
    return RunOptions(MatrixLimits(template), allowed, "cuda" if request.device == "cuda" else "cpu")


def trials_at_most(tuning: Tuning, optuna_trials: int) -> int:
    """Return how many trials some Optuna trials and the reference need at most, the judge's left out."""
    attacks = len(tuning.tuning.attacks.items)
    each = attacks * len(tuning.tuning.attackers.items) * len(tuning.settings.seeds)
    return optuna_trials * each + attacks * len(tuning.settings.seeds)
