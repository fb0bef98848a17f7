"""Gradient matching in the images of a generator: phases of Adam over rows, whoever evaluates them.

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
from attacks.generative_plan import Plan
from attacks.matching import PlainObjective
from attacks.problem import Problem
from fl.errors import BenchError

if TYPE_CHECKING:
    from torch import Tensor

    from fl.generators.architecture import Generator


class Evaluated(NamedTuple):
    """The objective of B rows of images.

    Attributes:
        terms: By name, unweighted, each `B`; `total` is what is minimised.
        slopes: Of the totals in the inputs, `B x n x C x H x W`.
    """

    terms: Mapping[str, Tensor]
    slopes: Tensor


class Hunt:
    """One task on its way through all phases.

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
