"""Gradient matching in the images of a generator: two phases of Adam over rows, whoever evaluates them.

What a search for images is like is said by `Plan`; how the distance between gradients is computed is an
`Evaluator`'s business: the plain one below, one row at a time, or `attacks.engine.generative`'s.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from attacks.base import AttackEnv, Reconstruction, Snapshot, TaskFailure
from attacks.candidates import Candidate, as_images, reconstruction
from attacks.generative_plan import Phase, Plan
from attacks.matching import PlainObjective
from attacks.optimizers import SNAPSHOTS
from attacks.parametrisations import Drawn, Latents, Parametrisation, Weights
from attacks.problem import Problem
from fl.errors import BenchError

if TYPE_CHECKING:
    from torch import Tensor

    from fl.generators.architecture import Generator
    from fl.types import ImageSpec


class Evaluated(NamedTuple):
    """The objective of B rows of images.

    Attributes:
        terms: By name, unweighted, each `B`; `total` is what is minimised.
        slopes: Of the totals in the inputs, `B x n x C x H x W`.
    """

    terms: Mapping[str, Tensor]
    slopes: Tensor


class Hunt:
    """One task on its way through both phases.

    Args:
        problem: The task's problem.
        plan: The search, within the task's allowance.
        generator: Its prior, in eval mode, without gradients, on the device.
        env: Where snapshots go.

    Raises:
        NotApplicableError: If labels are to be read and cannot be.

    Attributes:
        problem: As given.
        plan: As given.
        generator: As given.
        labelling: Where labels come from.
        spent: Evaluations so far.
        stopped: Whether `env.stopping` said so.
        best: The candidate with the lowest matching cost so far, and its latent vectors.
    """

    def __init__(self, problem: Problem, plan: Plan, generator: Generator, env: AttackEnv) -> None:
        self.problem = problem
        self.plan = plan
        self.generator = generator
        self.labelling = problem.labelling(plan.recipe.labels)
        self.spent = 0
        self.stopped = False
        self.best: tuple[Candidate, Tensor] | None = None
        self._env = env
        self._lowest = math.inf

    def first_latents(self, restart: int) -> Tensor:
        """Return `n x latent` from N(0, 1), the same for every defense."""
        stream = self.problem.task.streams.torch("first_latents", restart=restart)
        drawn = torch.randn(self.problem.images, self.generator.latent, generator=stream)
        return drawn.to(self.problem.device)

    def see(self, terms: Mapping[str, float], inputs: Tensor, restart: int, *, keep: bool) -> None:
        """Take in an evaluation; `keep` a snapshot of it."""
        self.spent += 1
        if math.isfinite(terms["total"]):
            self._lowest = min(self._lowest, terms["total"])
        if keep:
            images = as_images(self.problem, inputs)
            snapshot = Snapshot(self.spent - 1, terms, self._lowest, images, restart)
            self._env.record(self.problem.task.task_id, snapshot)

    def check_stopping(self) -> bool:
        """Return whether the task is to stop, now or since earlier."""
        self.stopped = self.stopped or self._env.stopping(self.problem.task.task_id)
        return self.stopped

    def offer(self, terms: Mapping[str, float], inputs: Tensor, latents: Tensor) -> None:
        """Keep where a run came to, if its matching cost is the lowest."""
        lowest = math.inf if self.best is None else self.best[0].terms["matching"]
        if terms["matching"] < lowest:
            self.best = (Candidate(terms, inputs.clone(), None), latents.clone())

    def answer(self) -> Reconstruction | TaskFailure:
        """Return the best candidate as the answer."""
        task_id = self.problem.task.task_id
        if self.stopped:
            return TaskFailure(task_id, "stopped")
        best = None if self.best is None else self.best[0]
        try:
            return reconstruction(self.problem, best, inferred=self.labelling.inferred, spent=self.spent)
        except BenchError as error:
            return TaskFailure(task_id, str(error))


class Run(NamedTuple):
    """A row: whose, and which restart."""

    hunt: Hunt
    restart: int


class Evaluator(ABC):
    """Evaluates the objectives of B rows of images at once.

    Attributes:
        lanes: B.
    """

    lanes: int

    @abstractmethod
    def load(self, hunts: Sequence[Hunt]) -> None:
        """Give the first rows their targets; the others are idle."""

    @abstractmethod
    def evaluate(self, inputs: Tensor) -> Evaluated:
        """Evaluate at normalised images, `B x n x C x H x W`; an idle row's outcome means nothing."""


class PlainEvaluator(Evaluator):
    """One row at a time: the oracle, and what serves simulated clients and models of any kind."""

    lanes = 1

    def __init__(self) -> None:
        self._hunt: Hunt | None = None
        self._objective: PlainObjective | None = None

    def load(self, hunts: Sequence[Hunt]) -> None:
        """Take the only row's target."""
        (self._hunt,) = hunts
        self._objective = PlainObjective(self._hunt.problem, self._hunt.plan.recipe)

    def evaluate(self, inputs: Tensor) -> Evaluated:
        """Evaluate the only row."""
        assert self._hunt is not None
        assert self._objective is not None
        labels = self._hunt.labelling.fixed
        assert labels is not None
        images = inputs[0].clone().requires_grad_()
        found = self._objective.evaluate(images, labels)
        (slope,) = torch.autograd.grad(found.total, images)
        return Evaluated({name: term.unsqueeze(0) for name, term in found.terms.items()}, slope.unsqueeze(0))


def hunt(hunts: Sequence[Hunt], evaluator: Evaluator) -> None:
    """Take hunts that share plan and generator through both phases, as many rows at a time as there are.

    Source: Jeon et al. 2021, arXiv 2110.14962, algorithm 1, with two corrections: a phase hands on the
    iterate with the lowest matching cost, not its last, and the second starts from the best restart alone,
    since all would start from the same weights.
    """
    plan = hunts[0].plan
    runs = [Run(each, restart) for each in hunts for restart in range(plan.restarts)]
    for start in range(0, len(runs), evaluator.lanes):
        _search_latents(runs[start : start + evaluator.lanes], evaluator)
    if plan.parameters is None:
        return
    ready = [each for each in hunts if each.best is not None and not each.stopped]
    for start in range(0, len(ready), evaluator.lanes):
        _search_weights(ready[start : start + evaluator.lanes], evaluator)


def _search_latents(runs: Sequence[Run], evaluator: Evaluator) -> None:
    first = runs[0].hunt
    latents = _rows([run.hunt.first_latents(run.restart) for run in runs], evaluator.lanes)
    way = Latents(first.generator, first.problem.images, weight=first.plan.latent_norm)
    found = _descend(runs, evaluator, way, way.rows(latents), first.plan.latent)
    vectors = way.latents(found.rows)
    for lane, run in enumerate(runs):
        run.hunt.offer(found.terms[lane], found.inputs[lane], vectors[lane])


def _search_weights(hunts: Sequence[Hunt], evaluator: Evaluator) -> None:
    first = hunts[0]
    assert first.plan.parameters is not None
    latents = _rows([each.best[1] for each in hunts if each.best is not None], evaluator.lanes)
    way = Weights(first.generator, latents)
    runs = [Run(each, each.plan.restarts) for each in hunts]
    found = _descend(runs, evaluator, way, way.rows(), first.plan.parameters)
    for lane, each in enumerate(hunts):
        each.offer(found.terms[lane], found.inputs[lane], latents[lane])


class _Found(NamedTuple):
    """Where rows had their lowest matching cost: rows `B x D`, inputs, and terms of each."""

    rows: Tensor
    inputs: Tensor
    terms: list[dict[str, float]]


def _descend(
    runs: Sequence[Run], evaluator: Evaluator, way: Parametrisation, start: Tensor, phase: Phase
) -> _Found:
    """Take a phase's steps in all rows at once."""
    evaluator.load([run.hunt for run in runs])
    image = runs[0].hunt.problem.task.observation.image
    rows = start.clone()
    optimizer = torch.optim.Adam([rows], lr=phase.lr)
    stride = max(1, phase.iterations // SNAPSHOTS)
    best: _Found | None = None
    for iteration in range(phase.iterations + 1):
        stopping = [run.hunt.check_stopping() for run in runs]
        if all(stopping):
            break
        drawn = way.draw(rows)
        inputs = image.normalise(drawn.images)
        evaluated = evaluator.evaluate(inputs)
        terms = _by_row(evaluated.terms, drawn.norm, way.weight, active=len(runs))
        for lane, run in enumerate(runs):
            last = iteration == phase.iterations
            run.hunt.see(terms[lane], inputs[lane], run.restart, keep=last or iteration % stride == 0)
        best = _better(best, _Found(rows, inputs, terms))
        if iteration < phase.iterations:
            rows.grad = _pulled(drawn, evaluated, image, active=len(runs))
            optimizer.param_groups[0]["lr"] = phase.rate(iteration)
            optimizer.step()
    return best or _Found(rows, rows, [{"matching": math.inf} for _ in runs])


def _pulled(drawn: Drawn, evaluated: Evaluated, image: ImageSpec, *, active: int) -> Tensor:
    """Return the slope in the rows; none where a row is idle or no longer finite."""
    slopes = evaluated.slopes
    alive = evaluated.terms["total"].isfinite() & slopes.flatten(1).isfinite().all(1)
    alive[active:] = False
    kept = torch.where(alive.view(-1, 1, 1, 1, 1), slopes, 0)
    deviations = slopes.new_tensor(image.std).view(-1, 1, 1)
    return torch.where(alive.unsqueeze(1), drawn.pull(kept / deviations), 0)


def _by_row(
    terms: Mapping[str, Tensor], norm: Tensor | None, weight: float, *, active: int
) -> list[dict[str, float]]:
    found = dict(terms)
    if norm is not None:
        found |= {"latent_norm": norm, "total": terms["total"] + weight * norm}
    lists = {name: rows.tolist() for name, rows in found.items()}
    return [{name: values[lane] for name, values in lists.items()} for lane in range(active)]


def _better(best: _Found | None, now: _Found) -> _Found:
    """Return, row by row, the one with the lower matching cost."""
    if best is None:
        return now._replace(rows=now.rows.clone())
    falls = [new["matching"] < old["matching"] for new, old in zip(now.terms, best.terms, strict=True)]
    lower = torch.zeros(len(now.rows), dtype=torch.bool, device=now.rows.device)
    lower[: len(falls)] = torch.tensor(falls, device=now.rows.device)
    return _Found(
        rows=torch.where(lower.unsqueeze(1), now.rows, best.rows),
        inputs=torch.where(lower.view(-1, 1, 1, 1, 1), now.inputs, best.inputs),
        terms=[new if falls else old for new, old, falls in zip(now.terms, best.terms, falls, strict=True)],
    )


def _rows(rows: Sequence[Tensor], lanes: int) -> Tensor:
    """Stack rows, and zeros for idle lanes."""
    stacked = torch.stack(list(rows))
    return torch.cat([stacked, stacked.new_zeros(lanes - len(rows), *stacked.shape[1:])])
