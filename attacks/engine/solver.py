"""From tasks to batches and back: what can share a batch does, in whatever order tasks come."""

from __future__ import annotations

import json
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from attacks.base import AttackEnv, AttackTask, ConfigT, Reconstruction, TaskFailure
from attacks.engine.batch import Batch
from attacks.engine.formulations import FORMULATIONS
from attacks.engine.objective import ObjectiveSpec
from attacks.engine.program import UnsupportedModelError
from attacks.engine.search import Search
from attacks.engine.table import REFERENCE, choose
from attacks.matching import Recipe
from attacks.optimizers import Adam, Descent, Lbfgs, Sgd
from attacks.problem import Problem
from fl.errors import BenchError

Answer = Reconstruction | TaskFailure
Loop = Callable[[AttackTask[Any], AttackEnv, Recipe], Answer]
"""The plain loop, for what cannot be a lane."""

OPTIMIZERS: tuple[type[Lbfgs | Descent], ...] = (Lbfgs, Adam, Sgd)


@dataclass(frozen=True)
class Bucket:
    """What tasks have in common that share a batch; their weights may differ.

    Attributes:
        model: Name of the model.
        architecture: All that decides its graph, as text.
        spec: The objective.
        optimizer: Its family.
    """

    model: str
    architecture: str
    spec: ObjectiveSpec
    optimizer: type[Lbfgs | Descent]


def solve(
    tasks: Iterable[AttackTask[ConfigT]],
    env: AttackEnv,
    recipe: Callable[[ConfigT], Recipe],
    *,
    loop: Loop,
) -> Iterator[Answer]:
    """Solve the tasks in batches, yielding each as it finishes; a task's error is its answer.

    Args:
        tasks: Pulled as lanes fall idle.
        env: Where to compute.
        recipe: The attack.
        loop: Solves what cannot be a lane: simulated clients, models with an unknown operation.

    Raises:
        MemoryError: Running out of memory is everyone's; so is `torch.OutOfMemoryError`.
    """
    yield from _Solver(tasks, env, recipe, loop).run()


class _Solver:
    def __init__(
        self,
        tasks: Iterable[AttackTask[Any]],
        env: AttackEnv,
        recipe: Callable[[Any], Recipe],
        loop: Loop,
    ) -> None:
        self._source = iter(tasks)
        self._env = env
        self._recipe = recipe
        self._loop = loop
        self._waiting: defaultdict[Bucket, deque[AttackTask[Any]]] = defaultdict(deque)
        self._answers: deque[Answer] = deque()
        self._unsupported: set[str] = set()

    def run(self) -> Iterator[Answer]:
        """Fill a batch with the first task's bucket until no more of it come, then the next."""
        while (found := self._any()) is not None:
            bucket, search = found
            batch = self._batch(bucket, search)
            if batch is None:
                self._answers.append(self._alone(search.problem.task))
            else:
                yield from self._drain(batch, bucket, search)
            yield from self._flush()
        yield from self._flush()

    def _drain(self, batch: Batch, bucket: Bucket, first: Search) -> Iterator[Answer]:
        """Keep the batch's lanes busy until nothing is left for them; an error in it fails who is in it."""
        waiting: Search | None = first
        try:
            while waiting is not None or not batch.idle:
                while waiting is not None:
                    self._enter(batch, waiting)
                    waiting = self._next(bucket) if batch.free else None
                yield from self._flush()
                if not batch.idle:
                    yield from batch.run()
                waiting = self._next(bucket) if batch.free else None
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            yield from batch.abandon(error)

    def _enter(self, batch: Batch, search: Search) -> None:
        task_id = search.problem.task.task_id
        try:
            answer = batch.enter(search)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            answer = _failure(task_id, error)
        if answer is not None:
            self._answers.append(answer)

    def _any(self) -> tuple[Bucket, Search] | None:
        """Return any task that can be a lane."""
        for bucket in list(self._waiting):
            search = self._next(bucket)
            if search is not None:
                return bucket, search
        for task in self._source:
            found = self._prepare(task)
            if found is not None:
                return found
        return None

    def _next(self, bucket: Bucket) -> Search | None:
        """Return another task of the bucket; pulled ones of others wait, without their models in memory."""
        while self._waiting[bucket]:
            found = self._prepare(self._waiting[bucket].popleft())
            if found is not None:
                return found[1]
        del self._waiting[bucket]
        for task in self._source:
            found = self._prepare(task)
            if found is not None and found[0] == bucket:
                return found[1]
            if found is not None:
                self._waiting[found[0]].append(task)
        return None

    def _prepare(self, task: AttackTask[Any]) -> tuple[Bucket, Search] | None:
        """Return the task as a lane needs it; None where it is answered already."""
        try:
            recipe = self._recipe(task.config)
            problem = Problem.of(task, self._env, unroll=recipe.unroll)
            search = Search(problem, self._env, recipe)
            bucket = _bucket(search, recipe)
            if bucket is not None and bucket.architecture not in self._unsupported:
                return bucket, search
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            self._answers.append(_failure(task.task_id, error))
            return None
        self._answers.append(self._alone(task))
        return None

    def _alone(self, task: AttackTask[Any]) -> Answer:
        return self._loop(task, self._env, self._recipe(task.config))

    def _batch(self, bucket: Bucket, search: Search) -> Batch | None:
        """Return an empty batch for the bucket, or None if its model cannot be one."""
        choice = choose(bucket.model, self._env.device.type)
        if choice == REFERENCE:
            return None
        model = search.problem.model
        try:
            formulation = FORMULATIONS[choice.formulation](model, choice.lanes)
        except UnsupportedModelError:
            self._unsupported.add(bucket.architecture)
            return None
        like = next(model.parameters()).detach()
        return Batch(
            bucket.spec,
            formulation,
            optimizer=bucket.optimizer,
            choice=choice,
            like=like,
            env=self._env,
        )

    def _flush(self) -> Iterator[Answer]:
        while self._answers:
            yield self._answers.popleft()


def _failure(task_id: str, error: Exception) -> TaskFailure:
    """Return an error as an answer; a user's needs no traceback."""
    if isinstance(error, BenchError):
        return TaskFailure(task_id, str(error))
    return TaskFailure(task_id, f"{type(error).__name__}: {error}", traceback.format_exc())


def _bucket(search: Search, recipe: Recipe) -> Bucket | None:
    """Return what the task shares a batch by; None where it cannot be a lane."""
    problem = search.problem
    if problem.simulated or type(search.optimizer) not in OPTIMIZERS:
        return None
    observation = problem.task.observation
    sent = observation.sent
    order = [name for name, _ in problem.model.named_parameters() if name in problem.observed]
    weights = recipe.tensors.weights(order)
    spec = ObjectiveSpec(
        task=observation.task,
        images=problem.images,
        shape=observation.image.shape,
        names=tuple(order),
        matched=tuple(recipe.tensors.chosen(problem.observed, order)),
        cost=recipe.cost,
        weights=None if weights is None else tuple(weights.items()),
        varied=recipe.total_variation > 0,
        joint=search.joint,
        mirrored=problem.task.defense is not None,
    )
    graph = json.dumps([asdict(sent.architecture), sent.batch_norm], sort_keys=True)
    return Bucket(sent.architecture.name, graph, spec, type(search.optimizer))
