"""The plain solver of gradient matching: one task at a time, restarts in turn.

What an attack is, is said by its `Recipe`; how it is computed is decided here alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch

from attacks.base import AttackEnv, AttackTask, ConfigT, Reconstruction, Snapshot, TaskFailure
from attacks.candidates import Candidate, as_images, reconstruction
from attacks.failures import failure
from attacks.objectives import ALL_TENSORS, COSTS, CostName, TensorChoice
from attacks.optimizers import Descent, Evaluation, Lbfgs
from attacks.problem import Init, Labelling, LabelsName, Problem
from attacks.regularisers import (
    VARIATIONS,
    Group,
    VariationName,
    group_distance,
    image_norm,
    moments_distance,
)
from fl.specs import Task

if TYPE_CHECKING:
    from torch import Tensor

    from fl.batch_norm import Moments


@dataclass(frozen=True)
class Recipe:
    """What a gradient-matching attack minimises, in what, from where, and how.

    Attributes:
        cost: Distance between gradients.
        total_variation: Weight of the images' total variation.
        labels: Where labels come from (`Problem.labelling`).
        init: The first guess (`Problem.first_guess`).
        restarts: First guesses tried.
        optimizer: The optimizer for a problem.
        unroll: Whether all local steps are simulated.
        init_image: The picture file that `init: image` starts from, else None.
        init_jitter: Standard deviation of what is added to a first guess that is not drawn.
        tensors: Which observed tensors are matched, and how much each counts.
        matching: Weight of the distance between gradients.
        variation: Which total variation.
        image_norm: Weight of the images' mean Euclidean norm.
        batch_norm: Weight of the distance from known batch-norm statistics, where any are known.
        group: Agreement between restarts, which then step together; None: they run in turn.
    """

    cost: CostName
    total_variation: float
    labels: LabelsName
    init: Init
    restarts: int
    optimizer: Callable[[Problem], Lbfgs | Descent]
    unroll: bool = False
    init_image: str | None = None
    init_jitter: float = 0.0
    tensors: TensorChoice = ALL_TENSORS
    matching: float = 1.0
    variation: VariationName = "anisotropic"
    image_norm: float = 0.0
    batch_norm: float = 0.0
    group: Group | None = None


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
    except Exception as error:
        return failure(task.task_id, error)


def _match(task: AttackTask[Any], env: AttackEnv, recipe: Recipe) -> Reconstruction:
    problem = Problem.of(task, env, unroll=recipe.unroll)
    labelling = problem.labelling(recipe.labels)
    search = _Search(problem, env, recipe, labelling)
    best = min(search.candidates(), key=lambda candidate: candidate.terms["matching"], default=None)
    return reconstruction(problem, best, inferred=labelling.inferred, spent=search.objective.spent)


class PlainObjective:
    """What a recipe minimises for one task, as a function of images and labels.

    Attributes:
        spent: Evaluations so far.
    """

    def __init__(self, problem: Problem, recipe: Recipe) -> None:
        self.spent = 0
        self._problem = problem
        self._recipe = recipe
        order = [name for name, _ in problem.model.named_parameters() if name in problem.observed]
        self._matched = recipe.tensors.chosen(problem.observed, order)
        self._weights = recipe.tensors.weights(order)
        self._statistics = problem.statistics() if recipe.batch_norm else {}

    def evaluate(self, inputs: Tensor, labels: Tensor, mean: Tensor | None = None) -> Evaluation:
        """Return the objective; `mean` is that of the restarts, where there is one."""
        self.spent += 1
        recipe, problem = self._recipe, self._problem
        moments: Mapping[str, Moments] = {}
        if self._statistics:
            dummy, moments = problem.observe(inputs, labels)
        else:
            dummy = problem.gradients(inputs, labels)
        matching = COSTS[recipe.cost](dummy, self._matched, self._weights)
        found = {"matching": (recipe.matching, matching)}
        if recipe.total_variation:
            found["total_variation"] = (recipe.total_variation, VARIATIONS[recipe.variation](inputs))
        if recipe.image_norm:
            found["image_norm"] = (recipe.image_norm, image_norm(inputs))
        if self._statistics:
            found["batch_norm"] = (recipe.batch_norm, moments_distance(moments, self._statistics))
        if recipe.group is not None and mean is not None:
            found["group"] = (recipe.group.weight, group_distance(inputs, mean))
        total = reduce(torch.add, (weight * term for weight, term in found.values()))
        terms = {name: term.detach() for name, (_, term) in found.items()}
        return Evaluation(total, {**terms, "total": total.detach()})


class _StoppedError(Exception):
    """`env.stopping` said so."""


class _Search:
    """The restarts of one task.

    Attributes:
        recipe: The attack.
        problem: The task's problem.
        optimizer: The recipe's for this problem.
        labelling: Where labels come from.
        objective: What is minimised.
    """

    def __init__(self, problem: Problem, env: AttackEnv, recipe: Recipe, labelling: Labelling) -> None:
        self.recipe = recipe
        self.problem = problem
        self.optimizer = recipe.optimizer(problem)
        self.labelling = labelling
        self.objective = PlainObjective(problem, recipe)
        self._env = env
        self._iteration = 0
        self._best = math.inf
        limit = problem.task.max_evaluations
        self._limit = math.inf if limit is None else limit // problem.evaluations

    def candidates(self) -> Iterator[Candidate]:
        """Run the restarts, in turn or together."""
        group = self.recipe.group
        return self._in_turn() if group is None or self.recipe.restarts == 1 else self._together(group)

    def _in_turn(self) -> Iterator[Candidate]:
        """None runs after one that ends below `solved`."""
        for number in range(self.recipe.restarts):
            share = (self._limit - self.objective.spent) / (self.recipe.restarts - number)
            if share < 1:
                continue
            restart = _Restart(self, number, allowance=allowance_of(share))
            while restart.step():
                pass
            if restart.last is not None:
                yield restart.last
                if restart.last.terms["matching"] < self.optimizer.solved:
                    return

    def _together(self, group: Group) -> Iterator[Candidate]:
        """Step by step; before an iteration at which it is due, those still running are told their mean."""
        count = int(min(self.recipe.restarts, self._limit))
        restarts = [
            _Restart(self, number, allowance=allowance_of(self._limit / count)) for number in range(count)
        ]
        running = list(restarts)
        for iteration in itertools.count():
            if not running:
                break
            if group.due(iteration) and len(running) > 1:
                mean = torch.stack([restart.inputs.detach() for restart in running]).mean(0)
                for restart in running:
                    restart.mean = mean
            running = [restart for restart in running if restart.step()]
        yield from (restart.last for restart in restarts if restart.last is not None)

    def check_stopping(self) -> None:
        """Leave where the task is to stop."""
        if self._env.stopping(self.problem.task.task_id):
            raise _StoppedError

    def record(self, restart: int, candidate: Candidate, *, every: int) -> None:
        """Take in where a restart is."""
        self._best = min(self._best, candidate.terms["total"])
        if self._iteration % every == 0:
            images = as_images(self.problem, candidate.inputs)
            snapshot = Snapshot(self._iteration, candidate.terms, self._best, images, restart)
            self._env.record(self.problem.task.task_id, snapshot)
        self._iteration += 1


class _Restart:
    """One restart.

    Attributes:
        inputs: Its images, a variable.
        mean: The restarts' mean that it is drawn to, or None.
        last: Its last iterate with a finite objective, if there was any.
    """

    def __init__(self, search: _Search, number: int, *, allowance: float) -> None:
        recipe, problem = search.recipe, search.problem
        guess = problem.first_guess(recipe.init, number, image=recipe.init_image, jitter=recipe.init_jitter)
        self.inputs = guess.requires_grad_()
        self.mean: Tensor | None = None
        self.last: Candidate | None = None
        self._search = search
        self._number = number
        self._variables = [self.inputs]
        if search.labelling.fixed is None:
            logits = problem.first_logits(number, search.labelling.start)
            self._variables.append(logits.requires_grad_())
        self._iterates = search.optimizer.run(
            self._variables, self._objective, allowance, problem.noise(number)
        )

    def step(self) -> bool:
        """Take a step; return whether there may be another."""
        search = self._search
        iterate = next(self._iterates, None)
        if iterate is not None:
            search.check_stopping()
            if math.isfinite(iterate.total):
                self.last = _candidate(iterate.terms, iterate.values)
                search.record(self._number, self.last, every=search.optimizer.stride)
                return True
        final = self._objective()
        if math.isfinite(float(final.total.detach())):
            self.last = _candidate(final.terms, [variable.detach() for variable in self._variables])
            search.record(self._number, self.last, every=1)
        return False

    def _objective(self) -> Evaluation:
        labels = self._search.labelling.fixed
        if labels is None:
            labels = _soft(self._variables[1], self._search.problem.task.observation.task)
        return self._search.objective.evaluate(self.inputs, labels, self.mean)


def allowance_of(share: float) -> float:
    """Return what a restart may spend before its last evaluation, of a share of all."""
    return share if math.isinf(share) else math.floor(share) - 1


def _candidate(terms: Mapping[str, Tensor], values: Sequence[Tensor]) -> Candidate:
    floats = {name: float(term) for name, term in terms.items()}
    return Candidate(floats, values[0], values[1] if len(values) > 1 else None)


def _soft(logits: Tensor, task: Task) -> Tensor:
    """From optimised label logits, `n x outputs`, to label probabilities."""
    return logits.softmax(1) if task.kind == "multiclass" else logits.sigmoid()
