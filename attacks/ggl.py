"""Generative gradient leakage (Li, Zhang, Liu and Liu, CVPR 2022, arXiv 2203.15696)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from attacks.base import Attack, AttackEnv, AttackTask, Reconstruction, Snapshot, TaskFailure
from attacks.candidates import Candidate, as_images, reconstruction
from attacks.cards_generative import PRIOR
from attacks.cards_ggl import GglConfig
from attacks.failures import failure
from attacks.latent.base import LatentSearch
from attacks.optimizers import SNAPSHOTS
from attacks.problem import Problem
from fl.errors import NotApplicableError

if TYPE_CHECKING:
    from torch import Tensor

    from attacks.latent.objective import Evaluated, LatentObjective
    from fl.generators.architecture import Generator

HYPERCUBE = 256
"""Points from which TuRBO starts, but not more than a third of a restart's evaluations."""


class Ggl(Attack[GglConfig]):
    """Find the latent vector of a generator whose image has the observed gradient (equation 3).

    The label is read from the head's gradient, after the defense (section 3.2). An adaptive attacker passes
    the gradient of every trial image through the defense, with parameters estimated from what it observed
    (section 3.4). Of several searches the point with the lowest objective is kept.
    """

    def solve(
        self, tasks: Iterable[AttackTask[GglConfig]], env: AttackEnv
    ) -> Iterator[Reconstruction | TaskFailure]:
        """Solve the tasks in turn, each with a population of trial images at a time."""
        for task in tasks:
            yield _answer(task, env)


def _answer(task: AttackTask[GglConfig], env: AttackEnv) -> Reconstruction | TaskFailure:
    """Solve a task; its error is its answer, but running out of memory is everyone's."""
    try:
        return _Audit(task, env).run()
    except Exception as error:
        return failure(task.task_id, error)


class _Audit:
    """One task and the best point so far, over all restarts."""

    def __init__(self, task: AttackTask[GglConfig], env: AttackEnv) -> None:
        from attacks.latent.objective import LatentObjective

        self._task, self._env, self._config = task, env, task.config
        generator = _prior(task, env)
        self._problem = Problem.of(task, env, unroll=False)
        known = self._problem.known_labels()
        self._inferred = self._problem.inferred_labels(through_noise=True) if known is None else None
        labels = known if self._inferred is None else self._inferred
        assert labels is not None
        self._objective: LatentObjective = LatentObjective(self._problem, generator, labels, task.config)
        self._spent = 0
        self._best: Candidate | None = None

    def run(self) -> Reconstruction | TaskFailure:
        """Search from every start."""
        for restart, budget in enumerate(self._budgets()):
            if not self._search(restart, budget):
                return TaskFailure(self._task.task_id, "stopped")
        answer = reconstruction(self._problem, self._best, inferred=self._inferred, spent=self._spent)
        return replace(answer, formulation=self._objective.formulation, lane_width=self._objective.lanes)

    def _budgets(self) -> list[int]:
        """Return the evaluations of each restart, equal shares of what is allowed in all."""
        restarts, limit = self._config.restarts, self._task.max_evaluations
        total = restarts * self._config.budget
        if limit is not None:
            total = min(total, limit // self._problem.evaluations)
        return [total // restarts + (restart < total % restarts) for restart in range(restarts)]

    def _search(self, restart: int, budget: int) -> bool:
        """Spend the evaluations of a restart; return whether it came to its end."""
        search = search_of(
            self._task,
            restart,
            dimension=self._objective.dimension,
            budget=budget,
            device=self._env.device,
        )
        stride, done = max(1, budget // SNAPSHOTS), 0
        while done < budget:
            if self._env.stopping(self._task.task_id):
                return False
            points = search.ask()[: budget - done]
            differentiate = self._objective.differentiate if search.needs_slopes else self._objective.evaluate
            found = differentiate(points)
            before, done = done, done + len(points)
            self._see(found, restart, keep=not before or done == budget or before // stride < done // stride)
            if done < budget:
                search.tell(*_told(found))
        return True

    def _see(self, found: Evaluated, restart: int, *, keep: bool) -> None:
        """Take in a population; `keep` a snapshot of its best point."""
        totals = found.terms["total"]
        self._spent += len(totals)
        lowest = int(totals.nan_to_num(math.inf).argmin())
        terms = {name: float(term[lowest]) for name, term in found.terms.items()}
        terms["observed_norm"] = self._objective.observed_norm
        least = math.inf if self._best is None else self._best.terms["total"]
        if terms["total"] < least:
            self._best = Candidate(terms, found.inputs[lowest].clone(), None)
        if keep:
            images = as_images(self._problem, found.inputs[lowest])
            best = min(least, terms["total"])
            self._env.record(self._task.task_id, Snapshot(self._spent - 1, terms, best, images, restart))


def search_of(
    task: AttackTask[GglConfig], restart: int, *, dimension: int, budget: int, device: torch.device
) -> LatentSearch:
    """Return the search of a restart; its draws name neither defense nor attack.

    Args:
        task: Whose streams to draw from.
        restart: Which, from 0.
        dimension: Entries of a point.
        budget: Evaluations.
        device: Where to compute what takes long.
    """
    from attacks.latent.adam import AdamSearch
    from attacks.latent.cma_es import CmaEs
    from attacks.latent.random_search import RandomSearch
    from attacks.latent.turbo import Turbo

    config, streams = task.config, task.streams
    size = config.side_by_side
    match config.optimizer:
        case "cma":
            return CmaEs(dimension, size, streams.numpy("latent_search", restart=restart))
        case "turbo":
            initial = max(2, min(HYPERCUBE, budget // 3))
            stream = streams.torch("latent_search", restart=restart)
            return Turbo(dimension, size, initial=initial, box=config.box, stream=stream, device=device)
        case "adam":
            first = torch.randn(dimension, generator=streams.torch("first_latents", restart=restart))
            return AdamSearch(first, budget, lr=config.lr, schedule=config.schedule)
        case "random":
            return RandomSearch(dimension, size, streams.torch("first_latents", restart=restart))


def _prior(task: AttackTask[GglConfig], env: AttackEnv) -> Generator:
    """Return the generator, which must be able to draw such images.

    Raises:
        NotApplicableError: If it is missing or cannot.
    """
    from fl.generators.stage import load

    if PRIOR not in task.artifacts:
        raise NotApplicableError("expected a generator from its stage, got none; plan the trial with it")
    generator = load(task.artifacts[PRIOR], env.device)
    image = task.observation.image
    reason = generator.layout.unfit(image.channels, image.size)
    if reason := reason or generator.layout.unfit_for(task.observation.task):
        raise NotApplicableError(reason)
    return generator


def _told(found: Evaluated) -> tuple[Tensor, Tensor | None]:
    """Return what a search is told, on the CPU; what is not finite is as bad as the worst that is."""
    totals = found.terms["total"].cpu()
    finite = totals.isfinite()
    worst = totals[finite].max() if finite.any() else totals.new_zeros(())
    slopes = None if found.slopes is None else found.slopes.cpu().nan_to_num(0.0, 0.0, 0.0)
    return torch.where(finite, totals, worst), slopes
