"""From tasks to batches and back: what can share a batch does, in whatever order tasks come."""

from __future__ import annotations

import json
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from attacks.base import AttackEnv, AttackTask, ConfigT, Reconstruction, TaskFailure
from attacks.engine.batch import Batch
from attacks.engine.formulations import FORMULATIONS, WATCHED, Formulation
from attacks.engine.graphs import UnsupportedModelError
from attacks.engine.native.batch import NativeBatch
from attacks.engine.objective import ObjectiveSpec
from attacks.engine.search import Search
from attacks.engine.table import NATIVE, Choice, choices, spelled
from attacks.matching import Recipe
from attacks.optimizers import Adam, Descent, Lbfgs, Sgd
from attacks.problem import Problem
from fl.errors import BenchError
from fl.memory import is_out_of_memory

if TYPE_CHECKING:
    from torch import nn

Answer = Reconstruction | TaskFailure
Loop = Callable[[AttackTask[Any], AttackEnv, Recipe], Answer]
"""The plain loop, for what cannot be a lane."""

OPTIMIZERS: tuple[type[Lbfgs | Descent], ...] = (Lbfgs, Adam, Sgd)


@dataclass(frozen=True)
class Bucket:
    """What tasks have in common that share a batch; their weights may differ.

    Attributes:
        model: Its name and options, as the table spells them.
        architecture: All that decides its graph, as text.
        spec: The objective.
        optimizer: Its family.
        width: Lanes that a task takes.
    """

    model: str
    architecture: str
    spec: ObjectiveSpec
    optimizer: type[Lbfgs | Descent]
    width: int = 1


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
        Exception: Running out of memory, which is everyone's (`fl.memory.is_out_of_memory`).
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
        self._alone_only: set[Bucket] = set()

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

    def _drain(self, batch: Batch | NativeBatch, bucket: Bucket, first: Search) -> Iterator[Answer]:
        """Keep the batch's lanes busy until nothing is left for them; an error in it fails who is in it."""
        waiting: Search | None = first
        try:
            while waiting is not None or not batch.idle:
                while waiting is not None:
                    self._enter(batch, waiting)
                    waiting = self._next(bucket) if batch.free >= bucket.width else None
                yield from self._flush()
                if not batch.idle:
                    yield from batch.run()
                waiting = self._next(bucket) if batch.free >= bucket.width else None
        except Exception as error:
            if is_out_of_memory(error):
                raise
            yield from batch.abandon(error)

    def _enter(self, batch: Batch | NativeBatch, search: Search) -> None:
        task_id = search.problem.task.task_id
        try:
            answer = batch.enter(search)
        except Exception as error:
            if is_out_of_memory(error):
                raise
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
            bucket = bucket_of(search, recipe)
            if bucket is not None and bucket not in self._alone_only:
                return bucket, search
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self._answers.append(_failure(task.task_id, error))
            return None
        self._answers.append(self._alone(task))
        return None

    def _alone(self, task: AttackTask[Any]) -> Answer:
        return self._loop(task, self._env, self._recipe(task.config))

    def _batch(self, bucket: Bucket, search: Search) -> Batch | NativeBatch | None:
        """Return an empty batch for the bucket, or None if it cannot be one."""
        for choice in choices(bucket.model, self._env.device.type, width=bucket.width):
            with suppress(UnsupportedModelError):
                return self._made(bucket, search.problem.model, choice)
        self._alone_only.add(bucket)
        return None

    def _made(self, bucket: Bucket, model: nn.Module, choice: Choice) -> Batch | NativeBatch:
        if choice == NATIVE and bucket.optimizer is Lbfgs:
            check_parameters(model)
            return NativeBatch(bucket.spec, model, self._env)
        return Batch(
            bucket.spec,
            formulated(bucket.spec, model, choice),
            optimizer=bucket.optimizer,
            choice=choice,
            like=next(model.parameters()).detach(),
            env=self._env,
        )

    def _flush(self) -> Iterator[Answer]:
        while self._answers:
            yield self._answers.popleft()


def check_parameters(model: nn.Module) -> None:
    """Raise an error if two layers share a parameter: formulations give each layer its own gradient.

    Raises:
        UnsupportedModelError: If so.
    """
    if len(list(model.parameters())) < len(list(model.named_parameters(remove_duplicate=False))):
        raise UnsupportedModelError("two of its layers share a parameter")


def formulated(spec: ObjectiveSpec, model: nn.Module, choice: Choice) -> Formulation:
    """Return what computes the lanes' gradients.

    Raises:
        UnsupportedModelError: If it does not know an operation of the model, or cannot tell what batch norms
            take in where that is asked for.
    """
    check_parameters(model)
    known = WATCHED if spec.watched else FORMULATIONS
    if choice.formulation not in known:
        raise UnsupportedModelError(f"{choice.formulation} does not know the objective")
    return known[choice.formulation](model, choice.lanes)


def _failure(task_id: str, error: Exception) -> TaskFailure:
    """Return an error as an answer; a user's needs no traceback."""
    if isinstance(error, BenchError):
        return TaskFailure(task_id, str(error))
    return TaskFailure(task_id, f"{type(error).__name__}: {error}", traceback.format_exc())


def bucket_of(search: Search, recipe: Recipe) -> Bucket | None:
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
        variation=recipe.variation,
        normed=recipe.image_norm > 0,
        watched=search.watched,
        grouped=search.grouped,
        weighted=recipe.matching != 1,
    )
    graph = json.dumps([asdict(sent.architecture), sent.batch_norm], sort_keys=True)
    return Bucket(
        spelled(sent.architecture.name, sent.architecture.config),
        graph,
        spec,
        type(search.optimizer),
        search.width,
    )
