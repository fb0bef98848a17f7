"""Solving a bundle: tasks of several trials go to the attack together, results come back trial by trial."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from attacks import ATTACKS
from attacks.base import Reconstruction
from harness.execute.answers import store_answers
from harness.execute.environment import Environment, make_task
from harness.execute.results import TrialResult, result_key, store_result
from harness.execute.work import BundleItem, Failure, FailureKind, Trial, Usage

if TYPE_CHECKING:
    from attacks.base import AttackTask
    from harness.execute.lane import Meter
    from harness.execute.materials import Materials, Seen
    from harness.execute.score import Scorer
    from harness.store.artifacts import ArtifactStore


class _Pending:
    """A trial whose targets are not all answered."""

    def __init__(self, trial: Trial, seen: tuple[Seen, ...]) -> None:
        self.trial = trial
        self.seen = seen
        self.open = {one.target_id for one in seen if not one.refused}
        self.answers: dict[str, Reconstruction] = {}


def solve_bundle(
    materials: Materials,
    store: ArtifactStore,
    scorer: Scorer,
    item: BundleItem,
    meter: Meter,
    *,
    solved: Callable[[], None] = lambda: None,
) -> dict[str, Failure]:
    """Solve, score and store every trial of a bundle that has no stored result.

    What a trial cost is final only when the bundle is done: until then its result says what passed since
    the one before.

    Args:
        materials: What trials need.
        store: Where results go.
        scorer: Judges them.
        item: The bundle.
        meter: Measures it.
        solved: Called whenever a result is stored.

    Returns:
        The trials that failed on their own, by id; the others' results are in the store.
    """
    limit = None if item.timeout_s is None else item.timeout_s * len(item.trials)
    env = Environment(materials.device, timeout_s=limit)
    solving = _Solving(materials, store, scorer=scorer, meter=meter, env=env, solved=solved)
    tasks = solving.begin([trial for trial in item.trials if not store.has(result_key(trial.trial_id))])
    attack = ATTACKS.implementation(item.trials[0].spec.attack.name)()
    for answer in attack.solve(tasks, env):
        trial_id, _, target_id = answer.task_id.partition("/")
        if isinstance(answer, Reconstruction):
            solving.take(trial_id, target_id, answer)
            continue
        timed_out = env.stopping(answer.task_id)
        kind: FailureKind = "timeout" if timed_out else "exception"
        reason = f"no result within {limit:g} s" if timed_out and limit else answer.error
        solving.failures.setdefault(trial_id, Failure(kind, f"{target_id}: {reason}", answer.traceback))
    solving.end()
    return solving.failures


class _Solving:
    """A bundle on its way: which of its trials wait for answers, have a result, or failed."""

    def __init__(
        self,
        materials: Materials,
        store: ArtifactStore,
        *,
        scorer: Scorer,
        meter: Meter,
        env: Environment,
        solved: Callable[[], None],
    ) -> None:
        self.failures: dict[str, Failure] = {}
        self._materials = materials
        self._store = store
        self._scorer = scorer
        self._meter = meter
        self._env = env
        self._solved = solved
        self._results: dict[str, TrialResult] = {}
        self._pending: dict[str, _Pending] = {}

    def begin(self, trials: Iterable[Trial]) -> list[AttackTask[Any]]:
        """Return the tasks of trials, of which those without any are done at once."""
        tasks: list[AttackTask[Any]] = []
        for trial in trials:
            try:
                waiting = _Pending(trial, self._materials.seen(trial.spec))
                tasks += [make_task(trial, one, self._materials) for one in waiting.seen if not one.refused]
                self._pending[trial.trial_id] = waiting
            except Exception as error:  # this trial's own failure; its companions go on
                self._fail(trial, error)
        for waiting in self._pending.values():
            if not waiting.open:
                self._finish(waiting)
        return tasks

    def take(self, trial_id: str, target_id: str, answer: Reconstruction) -> None:
        """Keep an answer, and finish its trial if it is the last."""
        waiting = self._pending[trial_id]
        waiting.open.discard(target_id)
        waiting.answers[target_id] = answer
        if not waiting.open and trial_id not in self.failures:
            self._finish(waiting)

    def end(self) -> None:
        """Fail trials without all their answers, and share out what the bundle cost."""
        for trial_id, waiting in self._pending.items():
            if waiting.open and trial_id not in self.failures:
                missing = ", ".join(sorted(waiting.open))
                self.failures[trial_id] = Failure("exception", f"the attack gave no answer for {missing}")
        for trial_id, result in _shared(self._results).items():
            store_result(self._store, trial_id, result)

    def _finish(self, waiting: _Pending) -> None:
        trial = waiting.trial
        snapshots = {t: self._env.taken(f"{trial.trial_id}/{t}") for t in waiting.answers}
        try:
            result = self._scorer.result(trial, waiting.seen, waiting.answers, snapshots, self._meter.lap())
            store_answers(self._materials.answers(trial.spec), trial.trial_id, waiting.answers)
            store_result(self._store, trial.trial_id, result)
        except Exception as error:
            self._fail(trial, error)
            return
        self._results[trial.trial_id] = result
        self._meter.lap()  # what scoring took is not the next trial's cost
        self._solved()

    def _fail(self, trial: Trial, error: Exception) -> None:
        from harness.execute.lane import describe

        self.failures[trial.trial_id] = describe(error)


def _shared(results: Mapping[str, TrialResult]) -> dict[str, TrialResult]:
    """Return the results with the bundle's cost divided by their iterations.

    Trials that are solved side by side finish at about the same time, whatever each of them took.
    """
    iterations = {trial_id: int(result.columns["lane_iterations"]) for trial_id, result in results.items()}
    total = sum(iterations.values())
    if len(results) < 2 or not total:
        return {}
    spent = [result.usage for result in results.values()]
    shares = {trial_id: count / total for trial_id, count in iterations.items()}
    return {
        trial_id: replace(
            result,
            usage=Usage(
                wall_s=shares[trial_id] * sum(usage.wall_s for usage in spent),
                cpu_s=shares[trial_id] * sum(usage.cpu_s for usage in spent),
                gpu_s=shares[trial_id] * sum(usage.gpu_s for usage in spent),
                peak_mem_mib=result.usage.peak_mem_mib,
            ),
        )
        for trial_id, result in results.items()
    }
