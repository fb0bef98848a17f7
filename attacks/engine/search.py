"""One task on its way through a lane: its restarts, in turn, and the best of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from attacks.base import AttackEnv, Reconstruction, Snapshot
from attacks.candidates import Candidate, as_images, reconstruction
from attacks.engine.losses import probabilities
from attacks.engine.objective import Target
from attacks.engine.rows import Event
from attacks.matching import Recipe
from attacks.problem import Problem


class Start(NamedTuple):
    """A restart: where from, `D`, and how many evaluations it may spend before the last one."""

    values: Tensor
    allowance: float


class Search:
    """The restarts of one task; none runs after one that is solved.

    Args:
        problem: The task's problem.
        env: Where snapshots go.
        recipe: The attack.

    Raises:
        NotApplicableError: If labels are to be inferred and cannot be.

    Attributes:
        problem: As given.
        optimizer: The recipe's for this problem.
    """

    def __init__(self, problem: Problem, env: AttackEnv, recipe: Recipe) -> None:
        self.problem = problem
        self.optimizer = recipe.optimizer(problem)
        self._env = env
        self._recipe = recipe
        self._known = problem.known_labels()
        guessed = self._known is None and recipe.labels == "infer"
        self._inferred = problem.inferred_labels() if guessed else None
        limit = problem.task.max_evaluations
        self._limit = math.inf if limit is None else limit // problem.evaluations
        self._spent = 0
        self._restart = -1
        self._iteration = 0
        self._best_total = math.inf
        self._last: Candidate | None = None
        self._best: Candidate | None = None

    @property
    def joint(self) -> bool:
        """Whether label logits are optimised with the images."""
        return self._known is None and self._inferred is None

    @property
    def target(self) -> Target:
        """What the lane is matched against."""
        problem, task = self.problem, self.problem.task
        labels = self._known if self._inferred is None else self._inferred
        defense = None if problem.simulated else task.defense
        return Target(
            tensors={
                name: tensor.to(problem.device) for name, tensor in task.observation.sent.tensors.items()
            },
            observed=problem.observed,
            labels=None if labels is None else probabilities(labels, task.observation.task),
            total_variation=self._recipe.total_variation,
            scale=problem.scale,
            mirror=None if defense is None else lambda update: defense.mirror(problem.params, update),
        )

    def begin(self) -> Start | None:
        """Begin the next restart; None where no more is needed or allowed."""
        solved = self._best is not None and self._best.terms["matching"] < self.optimizer.solved
        while not solved and self._restart + 1 < self._recipe.restarts:
            self._restart += 1
            share = (self._limit - self._spent) / (self._recipe.restarts - self._restart)
            if share >= 1:
                self._last = None
                return Start(self._first_values(), share if math.isinf(share) else math.floor(share) - 1)
        return None

    def take(self, event: Event, terms: Mapping[str, float], values: Tensor) -> bool:
        """Take in an evaluation, the objective's terms at `values`; return whether the restart is over."""
        self._spent += 1
        if event in (Event.ITERATE, Event.LAST):
            self._last = self._candidate(terms, values)
            stride = 1 if event is Event.LAST else self.optimizer.stride
            self._record(self._last, every=stride)
        over = event in (Event.LAST, Event.DEAD)
        if over and self._last is not None:
            lowest = math.inf if self._best is None else self._best.terms["matching"]
            if self._last.terms["matching"] < lowest:
                self._best = _detached(self._last)
        return over

    def answer(self) -> Reconstruction:
        """Return the best restart's result.

        Raises:
            BenchError: If no restart had a finite objective.
        """
        return reconstruction(self.problem, self._best, inferred=self._inferred, spent=self._spent)

    def _first_values(self) -> Tensor:
        recipe, problem = self._recipe, self.problem
        parts = [
            problem.first_guess(
                recipe.init, self._restart, image=recipe.init_image, jitter=recipe.init_jitter
            )
        ]
        if self.joint:
            parts.append(problem.first_logits(self._restart))
        return torch.cat([part.flatten() for part in parts])

    def _candidate(self, terms: Mapping[str, float], values: Tensor) -> Candidate:
        task = self.problem.task.observation
        shape = (self.problem.images, *task.image.shape)
        pixels = math.prod(shape)
        outputs = task.task.outputs
        logits = values[pixels : pixels + shape[0] * outputs].view(-1, outputs) if self.joint else None
        return Candidate(terms, values[:pixels].view(shape), logits)

    def _record(self, candidate: Candidate, *, every: int) -> None:
        self._best_total = min(self._best_total, candidate.terms["total"])
        if self._iteration % every == 0:
            images = as_images(self.problem, candidate.inputs)
            snapshot = Snapshot(self._iteration, candidate.terms, self._best_total, images, self._restart)
            self._env.record(self.problem.task.task_id, snapshot)
        self._iteration += 1


def _detached(candidate: Candidate) -> Candidate:
    """Return a candidate that does not keep the batch's tensors alive."""
    logits = None if candidate.logits is None else candidate.logits.clone()
    return candidate._replace(inputs=candidate.inputs.clone(), logits=logits)
