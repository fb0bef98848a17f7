"""Searches through a generator, many tasks side by side: who shares a batch, and the objective over lanes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

from attacks.base import AttackEnv, AttackTask, ConfigT, Reconstruction, TaskFailure
from attacks.engine.graphs import UnsupportedModelError
from attacks.engine.objective import LaneObjective
from attacks.engine.search import Search
from attacks.engine.solver import Bucket, bucket_of, formulated
from attacks.engine.table import NATIVE, REFERENCE, Choice, choices
from attacks.failures import failure
from attacks.generative import Evaluated, Evaluator, Hunt, PlainEvaluator
from attacks.generative_phases import hunt
from attacks.generative_plan import Plan
from attacks.problem import Problem
from fl.errors import NotApplicableError
from fl.generators.stage import load

if TYPE_CHECKING:
    from torch import Tensor

    from fl.types import Artifact

Answer = Reconstruction | TaskFailure


@dataclass(frozen=True)
class Group:
    """What hunts have in common that share a batch.

    Attributes:
        config: The attack's canonical configuration.
        plan: Restarts and iterations of all phases, within the tasks' allowance.
        prior: Digest of the generator.
        bucket: Model and objective; None for those that are evaluated one by one.
    """

    config: str
    plan: tuple[int, ...]
    prior: str
    bucket: Bucket | None


def solve(
    tasks: Iterable[AttackTask[ConfigT]],
    env: AttackEnv,
    plan: Callable[[ConfigT], Plan],
    *,
    prior: str,
) -> Iterator[Answer]:
    """Solve the tasks, a batch whenever as many have come as it holds; a task's error is its answer.

    Args:
        tasks: Each with its generator among its artifacts.
        env: Where to compute.
        plan: The search.
        prior: The generator's name among the artifacts.

    Raises:
        Exception: Running out of memory, which is everyone's (`fl.memory.is_out_of_memory`).
    """
    waiting: defaultdict[Group, list[Hunt]] = defaultdict(list)
    for task in tasks:
        prepared = _guarded(task.task_id, partial(_prepare, task, env, plan, prior))
        if isinstance(prepared, TaskFailure):
            yield prepared
            continue
        group, search = prepared
        waiting[group].append(search)
        if len(waiting[group]) >= _lanes(group, env):
            yield from _solved(group, waiting.pop(group), env)
    for group in list(waiting):
        yield from _solved(group, waiting.pop(group), env)


class LaneEvaluator(Evaluator):
    """The engine's objective over lanes.

    Args:
        bucket: What the lanes share.
        first: Any of the hunts, for the model.
        choice: Formulation and number of lanes.
        env: Where to compute.

    Raises:
        UnsupportedModelError: If the formulation cannot compute the model or the objective.
    """

    def __init__(self, bucket: Bucket, first: Hunt, choice: Choice, env: AttackEnv) -> None:
        model = first.problem.model
        like = next(model.parameters()).detach()
        self.lanes = choice.lanes
        self._spec = bucket.spec
        self._env = env
        formulation = formulated(bucket.spec, model, choice)
        self._objective = LaneObjective(bucket.spec, formulation, choice.lanes, like)

    def load(self, hunts: Sequence[Hunt]) -> None:
        """Give the first lanes their targets."""
        for lane, each in enumerate(hunts):
            self._objective.load(lane, Search(each.problem, self._env, each.plan.recipe).target)

    def evaluate(self, inputs: Tensor) -> Evaluated:
        """Evaluate all lanes."""
        flat = inputs.flatten(1)
        found = self._objective.evaluate(F.pad(flat, (0, self._spec.variables - flat.shape[1])))
        return Evaluated(found.terms, found.gradients[:, : self._spec.pixels].view_as(inputs))


def _prepare(
    task: AttackTask[ConfigT], env: AttackEnv, plan: Callable[[ConfigT], Plan], prior: str
) -> tuple[Group, Hunt]:
    if prior not in task.artifacts:
        raise NotApplicableError("expected a generator from its stage, got none; plan the trial with it")
    artifact = task.artifacts[prior]
    generator = load(artifact, env.device)
    layout, image = generator.layout, task.observation.image
    reason = layout.unfit(image.channels, image.size) or layout.unfit_for(task.observation.task)
    if reason:
        raise NotApplicableError(reason)
    problem = Problem.of(task, env, unroll=False)
    limit = task.max_evaluations
    allowance = None if limit is None else limit // problem.evaluations
    within = plan(task.config).through(len(generator.blocks)).within(allowance)
    search = Hunt(problem, within, generator, env)
    bucket = bucket_of(Search(problem, env, within.recipe), within.recipe)
    return Group(task.config.canonical, within.shape, _digest(artifact), bucket), search


def _choices(group: Group, env: AttackEnv) -> list[Choice]:
    found = [] if group.bucket is None else choices(group.bucket.model, env.device.type)
    return [choice for choice in found if choice != NATIVE]


def _lanes(group: Group, env: AttackEnv) -> int:
    return next((choice.lanes for choice in _choices(group, env)), 1)


def _evaluator(group: Group, first: Hunt, env: AttackEnv) -> tuple[Choice, Evaluator]:
    for choice in _choices(group, env):
        assert group.bucket is not None
        with suppress(UnsupportedModelError):
            return choice, LaneEvaluator(group.bucket, first, choice, env)
    return REFERENCE, PlainEvaluator()


def _solved(group: Group, hunts: Sequence[Hunt], env: AttackEnv) -> Iterator[Answer]:
    choice, evaluator = _evaluator(group, hunts[0], env)
    batches = [hunts] if choice != REFERENCE else [[each] for each in hunts]
    for batch in batches:
        error = _guarded("", partial(hunt, batch, evaluator))
        for each in batch:
            if isinstance(error, TaskFailure):
                yield replace(error, task_id=each.problem.task.task_id)
                continue
            answer = _guarded(each.problem.task.task_id, each.answer)
            if isinstance(answer, Reconstruction) and choice != REFERENCE:
                answer = replace(answer, formulation=choice.formulation, lane_width=choice.lanes, tabled=True)
            yield answer


def _guarded(task_id: str, work: Callable[[], Any]) -> Any:
    """Return what `work` returns, or its error as an answer."""
    try:
        return work()
    except Exception as error:
        return failure(task_id, error)


def _digest(artifact: Artifact) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(artifact.tensors.items()):
        found.update(name.encode())
        found.update(tensor.contiguous().cpu().numpy().tobytes())
    return found.hexdigest()
