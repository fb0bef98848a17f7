"""Inverting gradients (Geiping, Bauermeister, Droege and Moeller, NeurIPS 2020, arXiv 2003.14053)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from attacks import matching
from attacks.base import Attack, AttackEnv, AttackTask, Reconstruction, TaskFailure
from attacks.catalog import InvertingGradientsConfig
from attacks.matching import Recipe
from attacks.optimizers import Adam
from attacks.problem import Problem


class InvertingGradients(Attack[InvertingGradientsConfig]):
    """Find images whose gradient points where the observed one does (equation 4).

    argmin over x of 1 - cos(grad L(f(x), y), g) + weight TV(x), by Adam on the sign of its gradient, images
    clamped to [0, 1] after each step. Restarts are compared by the matching cost without total variation.
    Labels are those granted, else inferred (`attacks.labels`). A weight delta counts as one step of its
    length, or with `unroll` is matched by simulating the local steps (section 5 and appendix).
    """

    def solve(
        self, tasks: Iterable[AttackTask[InvertingGradientsConfig]], env: AttackEnv
    ) -> Iterator[Reconstruction | TaskFailure]:
        """Solve the tasks in turn."""
        return matching.solve(tasks, env, _recipe)


def _recipe(config: InvertingGradientsConfig) -> Recipe:
    return Recipe(
        cost=config.cost,
        total_variation=config.total_variation,
        labels="infer",
        init=config.init,
        restarts=config.restarts,
        optimizer=lambda problem: _adam(config, problem),
        unroll=config.unroll,
    )


def _adam(config: InvertingGradientsConfig, problem: Problem) -> Adam:
    image = problem.task.observation.image
    black = torch.zeros(image.channels, 1, 1, device=problem.device)
    return Adam(
        iterations=config.iterations,
        lr=config.lr,
        signed=config.signed,
        decay=config.decay,
        box=(image.normalise(black), image.normalise(black + 1)) if config.boxed else None,
    )
