"""The plain solver of gradient matching: one task at a time, restarts in turn.

What an attack is, is said by its `Recipe`; how it is computed is decided here alone.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from attacks.base import AttackEnv, AttackTask, ConfigT, Reconstruction, Snapshot, TaskFailure
from attacks.candidates import Candidate, as_images, reconstruction
from attacks.objectives import ALL_TENSORS, COSTS, CostName, TensorChoice, total_variation
from attacks.optimizers import Descent, Evaluation, Lbfgs
from attacks.problem import Init, Problem
from fl.errors import BenchError
from fl.specs import Task


@dataclass(frozen=True)
class Recipe:
    """What a gradient-matching attack minimises, in what, from where, and how.

    Attributes:
        cost: Distance between gradients.
        total_variation: Weight of the images' total variation.
        labels: `joint` optimises label logits with the images; `infer` reads labels from the head's gradient.
            Labels that the threat model grants are used instead of either.
        init: The first guess (`Problem.first_guess`).
        restarts: First guesses tried.
        optimizer: The optimizer for a problem.
        unroll: Whether all local steps are simulated.
        init_image: The picture file that `init: image` starts from, else None.
        init_jitter: Standard deviation of what is added to a first guess that is not drawn.
        tensors: Which observed tensors are matched, and how much each counts.
    """

    cost: CostName
    total_variation: float
    labels: Literal["joint", "infer"]
    init: Init
    restarts: int
    optimizer: Callable[[Problem], Lbfgs | Descent]
    unroll: bool = False
    init_image: str | None = None
    init_jitter: float = 0.0
    tensors: TensorChoice = ALL_TENSORS


def solve(
    tasks: Iterable[AttackTask[ConfigT]], env: AttackEnv, recipe: Callable[[ConfigT], Recipe]
) -> Iterator[Reconstruction | TaskFailure]:
    """Solve the tasks in batches (`attacks.engine`); running out of memory is everyone's error."""
    from attacks.engine import solver

    yield from solver.solve(tasks, env, recipe, loop=answer)


def answer(task: AttackTask[Any], env: AttackEnv, recipe: Recipe) -> Reconstruction | TaskFailure:
    """Solve one task by the plain loop; its error is its answer, but running out of memory is everyone's."""
    try:
        return _match(task, env, recipe)
    except _StoppedError:
        return TaskFailure(task.task_id, "stopped")
    except BenchError as error:
        return TaskFailure(task.task_id, str(error))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        return TaskFailure(task.task_id, f"{type(error).__name__}: {error}", traceback.format_exc())


def _match(task: AttackTask[Any], env: AttackEnv, recipe: Recipe) -> Reconstruction:
    problem = Problem.of(task, env, unroll=recipe.unroll)
    known = problem.known_labels()
    inferred = problem.inferred_labels() if known is None and recipe.labels == "infer" else None
    search = _Search(problem, env, recipe, inferred if known is None else known)
    best = min(search.candidates(), key=lambda candidate: candidate.terms["matching"], default=None)
    return reconstruction(problem, best, inferred=inferred, spent=search.spent)


class _StoppedError(Exception):
    """`env.stopping` said so."""


class _Search:
    """The restarts of one task.

    Attributes:
        spent: Evaluations of the objective so far.
    """

    def __init__(self, problem: Problem, env: AttackEnv, recipe: Recipe, labels: Tensor | None) -> None:
        self.spent = 0
        self._problem = problem
        self._env = env
        self._recipe = recipe
        self._labels = labels
        self._optimizer = recipe.optimizer(problem)
        self._iteration = 0
        self._best = math.inf
        order = [name for name, _ in problem.model.named_parameters() if name in problem.observed]
        self._matched = recipe.tensors.chosen(problem.observed, order)
        self._weights = recipe.tensors.weights(order)
        limit = problem.task.max_evaluations
        self._limit = math.inf if limit is None else limit // problem.evaluations

    def candidates(self) -> Iterator[Candidate]:
        """Run the restarts in turn, none after one that ends below `solved`."""
        for restart in range(self._recipe.restarts):
            share = (self._limit - self.spent) / (self._recipe.restarts - restart)
            if share < 1:
                continue
            allowance = share if math.isinf(share) else math.floor(share) - 1
            candidate = self._run(restart, allowance=allowance)
            if candidate is not None:
                yield candidate
                if candidate.terms["matching"] < self._optimizer.solved:
                    return

    def _run(self, restart: int, *, allowance: float) -> Candidate | None:
        """Run one restart; return its last iterate with a finite objective, if there was any."""
        recipe = self._recipe
        guess = self._problem.first_guess(
            recipe.init, restart, image=recipe.init_image, jitter=recipe.init_jitter
        )
        inputs = guess.requires_grad_()
        variables = [inputs]
        if self._labels is None:
            variables.append(self._problem.first_logits(restart).requires_grad_())

        def objective() -> Evaluation:
            self.spent += 1
            labels = self._labels
            return self._evaluate(inputs, _soft(variables[1], self._task) if labels is None else labels)

        last = None
        for iterate in self._optimizer.run(variables, objective, allowance):
            if self._env.stopping(self._problem.task.task_id):
                raise _StoppedError
            if not math.isfinite(iterate.total):
                break
            last = _candidate(iterate.terms, iterate.values)
            self._record(restart, iterate.total, last, every=self._optimizer.stride)
        final = objective()
        if math.isfinite(float(final.total.detach())):
            last = _candidate(final.terms, [variable.detach() for variable in variables])
            self._record(restart, float(final.total.detach()), last, every=1)
        return last

    @property
    def _task(self) -> Task:
        return self._problem.task.observation.task

    def _evaluate(self, inputs: Tensor, labels: Tensor) -> Evaluation:
        recipe = self._recipe
        dummy = self._problem.gradients(inputs, labels)
        matching = COSTS[recipe.cost](dummy, self._matched, self._weights)
        terms = {"matching": matching.detach()}
        total = matching
        if recipe.total_variation:
            variation = total_variation(inputs)
            total = matching + recipe.total_variation * variation
            terms["total_variation"] = variation.detach()
        return Evaluation(total, {**terms, "total": total.detach()})

    def _record(self, restart: int, total: float, candidate: Candidate, *, every: int) -> None:
        self._best = min(self._best, total)
        if self._iteration % every == 0:
            images = as_images(self._problem, candidate.inputs)
            snapshot = Snapshot(self._iteration, candidate.terms, self._best, images, restart)
            self._env.record(self._problem.task.task_id, snapshot)
        self._iteration += 1


def _candidate(terms: Mapping[str, Tensor], values: Sequence[Tensor]) -> Candidate:
    floats = {name: float(term) for name, term in terms.items()}
    return Candidate(floats, values[0], values[1] if len(values) > 1 else None)


def _soft(logits: Tensor, task: Task) -> Tensor:
    """From optimised label logits, `n x outputs`, to label probabilities."""
    return logits.softmax(1) if task.kind == "multiclass" else logits.sigmoid()
