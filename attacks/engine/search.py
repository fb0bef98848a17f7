"""One task on its way through lanes: its restarts, in turn or together, and the best of them."""

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
from attacks.matching import Recipe, allowance_of
from attacks.problem import Problem


class Start(NamedTuple):
    """A restart.

    Attributes:
        number: Which, from 0.
        values: Where from, `D`.
        allowance: How many evaluations it may spend before the last one.
        noise: The stream of what is added to images between steps.
    """

    number: int
    values: Tensor
    allowance: float
    noise: torch.Generator


class Search:
    """The restarts of one task: in turn in one lane, none after one that is solved, or each in a lane.

    Args:
        problem: The task's problem.
        env: Where snapshots go.
        recipe: The attack.

    Raises:
        NotApplicableError: If labels are to be inferred and cannot be.

    Attributes:
        problem: As given.
        optimizer: The recipe's for this problem.
        width: Lanes it takes.
        met: Whether restarts have been told their mean.
    """

    def __init__(self, problem: Problem, env: AttackEnv, recipe: Recipe) -> None:
        self.problem = problem
        self.optimizer = recipe.optimizer(problem)
        self._env = env
        self._recipe = recipe
        self._labelling = problem.labelling(recipe.labels)
        self._statistics = problem.statistics() if recipe.batch_norm else {}
        limit = problem.task.max_evaluations
        self._limit = math.inf if limit is None else limit // problem.evaluations
        self._spent = 0
        self._restart = -1
        self._iteration = 0
        self._best_total = math.inf
        self._last: dict[int, Candidate] = {}
        self._best: Candidate | None = None
        self._group = recipe.group if recipe.restarts > 1 else None
        self._evaluations = 0
        self.met = False
        self.width = 1 if self._group is None else max(int(min(recipe.restarts, self._limit)), 1)

    @property
    def joint(self) -> bool:
        """Whether label logits are optimised with the images."""
        return self._labelling.fixed is None

    @property
    def watched(self) -> tuple[str, ...]:
        """The batch norms whose inputs' statistics are compared."""
        return tuple(self._statistics)

    @property
    def grouped(self) -> bool:
        """Whether restarts step together."""
        return self._group is not None

    @property
    def target(self) -> Target:
        """What the lane is matched against."""
        problem, task, recipe = self.problem, self.problem.task, self._recipe
        labels = self._labelling.fixed
        defense = None if problem.simulated else task.defense
        return Target(
            tensors={
                name: tensor.to(problem.device) for name, tensor in task.observation.sent.tensors.items()
            },
            observed=problem.observed,
            labels=None if labels is None else probabilities(labels, task.observation.task),
            total_variation=recipe.total_variation,
            scale=problem.scale,
            mirror=None if defense is None else lambda update: defense.mirror(problem.params, update),
            matching=recipe.matching,
            image_norm=recipe.image_norm,
            batch_norm=recipe.batch_norm,
            statistics=self._statistics,
            group=0.0 if self._group is None else self._group.weight,
        )

    def begin(self) -> Start | None:
        """Begin the next restart; None where no more is needed or allowed."""
        if self._group is not None:
            return self._begin_beside()
        solved = self._best is not None and self._best.terms["matching"] < self.optimizer.solved
        while not solved and self._restart + 1 < self._recipe.restarts:
            self._restart += 1
            share = (self._limit - self._spent) / (self._recipe.restarts - self._restart)
            if share >= 1:
                return self._start(share)
        return None

    def meets(self) -> bool:
        """Whether the evaluation that comes now is one before which restarts are told their mean."""
        self._evaluations += 1
        return self._group is not None and self._group.due(self._evaluations - 1)

    def take(
        self, event: Event, terms: Mapping[str, float], values: Tensor, *, restart: int | None = None
    ) -> bool:
        """Take in an evaluation of a restart, the last begun unless named; return whether it is over.

        Args:
            event: What the evaluation was to the optimizer.
            terms: The objective's terms.
            values: Where, `D`.
            restart: Which.
        """
        restart = self._restart if restart is None else restart
        if not self.met:
            terms = {name: term for name, term in terms.items() if name != "group"}
        self._spent += 1
        if event in (Event.ITERATE, Event.LAST):
            self._last[restart] = self._candidate(terms, values)
            stride = 1 if event is Event.LAST else self.optimizer.stride
            self._record(restart, self._last[restart], every=stride)
        over = event in (Event.LAST, Event.DEAD)
        if over and restart in self._last:
            last = self._last.pop(restart)
            lowest = math.inf if self._best is None else self._best.terms["matching"]
            if last.terms["matching"] < lowest:
                self._best = _detached(last)
        return over

    def answer(self) -> Reconstruction:
        """Return the best restart's result.

        Raises:
            BenchError: If no restart had a finite objective.
        """
        return reconstruction(self.problem, self._best, inferred=self._labelling.inferred, spent=self._spent)

    def _begin_beside(self) -> Start | None:
        if self._restart + 1 >= self.width or self._limit < 1:
            return None
        self._restart += 1
        return self._start(self._limit / self.width)

    def _start(self, share: float) -> Start:
        """Return the current restart, which may spend a share of all evaluations."""
        noise = self.problem.noise(self._restart)
        return Start(self._restart, self._first_values(), allowance_of(share), noise)

    def _first_values(self) -> Tensor:
        recipe, problem = self._recipe, self.problem
        parts = [
            problem.first_guess(
                recipe.init, self._restart, image=recipe.init_image, jitter=recipe.init_jitter
            )
        ]
        if self.joint:
            parts.append(problem.first_logits(self._restart, self._labelling.start))
        return torch.cat([part.flatten() for part in parts])

    def _candidate(self, terms: Mapping[str, float], values: Tensor) -> Candidate:
        task = self.problem.task.observation
        shape = (self.problem.images, *task.image.shape)
        pixels = math.prod(shape)
        outputs = task.task.outputs
        logits = values[pixels : pixels + shape[0] * outputs].view(-1, outputs) if self.joint else None
        return Candidate(terms, values[:pixels].view(shape), logits)

    def _record(self, restart: int, candidate: Candidate, *, every: int) -> None:
        self._best_total = min(self._best_total, candidate.terms["total"])
        if self._iteration % every == 0:
            images = as_images(self.problem, candidate.inputs)
            snapshot = Snapshot(self._iteration, candidate.terms, self._best_total, images, restart)
            self._env.record(self.problem.task.task_id, snapshot)
        self._iteration += 1


def _detached(candidate: Candidate) -> Candidate:
    """Return a candidate that does not keep the batch's tensors alive."""
    logits = None if candidate.logits is None else candidate.logits.clone()
    return candidate._replace(inputs=candidate.inputs.clone(), logits=logits)
