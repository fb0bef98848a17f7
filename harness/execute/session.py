"""One `bench run`: from a matrix to its results folder, under the experiment's lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attacks.engine.table import chosen_by_user, current, using
from fl.cards import Resources
from fl.errors import UsageError
from harness.execute.driver import RunLoop, RunOptions
from harness.execute.executor import DeviceChoice, Executor, LaneSettings
from harness.execute.rows import RowMaker
from harness.execute.schedule import Limits
from harness.execute.work import Trial
from harness.plan.columns import columns_of, flatten_stored
from harness.plan.planner import Plan, make_plan
from harness.store.artifacts import ArtifactStore
from harness.store.experiment import Experiment

if TYPE_CHECKING:
    from harness.config.matrix import Matrix
    from harness.execute.events import RunListener, RunResult


@dataclass(frozen=True)
class RunRequest:
    """What the user asked for.

    Attributes:
        matrix: The matrix.
        results: Folder of all experiments; this one's is `<results>/<name>`.
        executor: From the lanes' settings to the executor.
        device: Where lanes compute.
        only: Expressions that trials must match.
        skip: Expressions that they must not match.
        seeds: Seeds to keep; none for all.
        limit: Largest number of trials to run.
        keep_failed: Leave failed trials as they are instead of trying them again.
        max_failures: Stop once more trials than this have failed; None for the matrix's own word.
    """

    matrix: Matrix
    results: Path
    executor: Callable[[LaneSettings], Executor]
    device: DeviceChoice = "auto"
    only: Sequence[str] = ()
    skip: Sequence[str] = ()
    seeds: Sequence[int] = ()
    limit: int | None = None
    keep_failed: bool = False
    max_failures: int | None = None


@dataclass(frozen=True)
class Stores:
    """Where an experiment's artifacts lie.

    Attributes:
        artifacts: What may be shared between people who may see the results.
        private: Checkpoints, defense states and pictures of private images.
    """

    artifacts: str
    private: str

    @classmethod
    def of(cls, matrix: Matrix, folder: Path) -> Stores:
        """Return the matrix's stores, by default inside the experiment's folder."""
        settings = matrix.settings.store
        return cls(settings.uri or str(folder / "artifacts"), settings.private_uri or str(folder / "private"))


@dataclass(frozen=True)
class MatrixLimits:
    """Resources and time limits: the matrix's word over a card's."""

    matrix: Matrix = field(repr=False)

    def __call__(self, kind: Any, name: str, declared: Resources) -> Limits:
        """Return the limits of an item of `kind` for the plug-in `name`."""
        override = self.matrix.settings.override(kind, name)
        resources = Resources(
            cpus=declared.cpus if override.cpus is None else override.cpus,
            gpus=declared.gpus if override.gpus is None else override.gpus,
            memory_mib=declared.memory_mib if override.memory_mib is None else override.memory_mib,
        )
        return Limits(resources, override.timeout)


def run_matrix(request: RunRequest, listener: RunListener) -> RunResult:
    """Run what has no complete row yet and return how it ended.

    Raises:
        UsageError: If the request cannot be served (data, store, lock, device, Ray); nothing is run then.
    """
    matrix, table = request.matrix, chosen_by_user()
    make_plan(matrix, {}, only=request.only, skip=request.skip, seeds=request.seeds, limit=request.limit)
    folder = request.results / matrix.name
    experiment = Experiment.open(folder, columns=columns_of(matrix), resolve=flatten_stored)
    with experiment.lock():
        experiment.recover()
        stored = experiment.statuses()
        kept = {"failed": "complete"} if request.keep_failed else {}
        plan = make_plan(
            matrix,
            {trial: kept.get(status, status) for trial, status in stored.items()},
            only=request.only,
            skip=request.skip,
            seeds=request.seeds,
            limit=request.limit,
        )
        stores = Stores.of(matrix, folder)
        text = None if table is None else table.text
        executor = request.executor(
            LaneSettings(stores.artifacts, stores.private, request.device, text, matrix.settings.metrics)
        )
        rows = RowMaker(
            ArtifactStore(stores.artifacts),
            experiment=matrix.name,
            columns=plan.axis_columns,
            names={trial.trial_id: trial.name for trial in plan.todo},
        )
        loop = RunLoop(experiment, executor, rows, _options(request, plan), listener)
        todo = [Trial(trial.trial_id, trial.spec) for trial in plan.todo]
        try:
            if todo:
                executor.start(trial.spec for trial in todo)
            experiment.begin(manifest(plan, stores))
            _store_not_applicable(experiment, rows, plan, stored)
            with using(table or current()):
                result = loop.run(todo, skipped=plan.counts()["not_applicable"], held_back=plan.held_back)
        finally:
            executor.close()
        experiment.compact_if_needed()
    return result


def _options(request: RunRequest, plan: Plan) -> RunOptions:
    allowed = request.max_failures
    if allowed is None:
        allowed = request.matrix.settings.allowed_failures(len(plan.trials))
    device = "cuda" if request.device == "cuda" else "cpu"
    return RunOptions(MatrixLimits(request.matrix), allowed, device)


def _store_not_applicable(experiment: Experiment, rows: RowMaker, plan: Plan, stored: Any) -> None:
    new = [trial for trial in plan.not_applicable if trial.trial_id not in stored]
    made = [rows.not_applicable(Trial(t.trial_id, t.spec), t.reason or "", name=t.name) for t in new]
    if made:
        experiment.commit(made)


def manifest(plan: Plan, stores: Stores) -> dict[str, Any]:
    """Return what `manifest.json` keeps: the matrix as resolved, the environment, the data's checksums."""
    from harness.execute.provenance import data_checksums, environment, git_state

    return {
        "name": plan.matrix.name,
        "counts": plan.counts(),
        "stages": [stage._asdict() for stage in plan.stages],
        "file": str(plan.matrix.path),
        "matrix": plan.matrix.document,
        "environment": environment(),
        "git": git_state(),
        "data": data_checksums(plan),
        "store": {"artifacts": stores.artifacts, "private": plan.matrix.settings.store.private_uri},
    }


def inline(settings: LaneSettings) -> Executor:
    """Return the inline executor."""
    from harness.execute.inline import InlineExecutor

    return InlineExecutor(settings)


def choose_executor(
    name: str, *, workers: int | None, address: str | None
) -> Callable[[LaneSettings], Executor]:
    """Return how to make the executor that the user named.

    Raises:
        UsageError: If the options do not belong to it, or Ray is not installed.
    """
    if name == "inline":
        if address is not None or (workers or 1) > 1:
            raise UsageError("--address and --workers need --executor ray (inline is one process)")
        return inline

    def ray(settings: LaneSettings) -> Executor:
        from harness.execute.ray_executor import RayExecutor

        return RayExecutor(settings, address=address, workers=workers)

    return ray
