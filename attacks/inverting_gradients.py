"""Inverting gradients (Geiping, Bauermeister, Droege and Moeller, NeurIPS 2020, arXiv 2003.14053)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from attacks import matching
from attacks.base import Attack, AttackEnv, AttackTask, Reconstruction, TaskFailure
from attacks.catalog import InvertingGradientsConfig
from attacks.matching import Recipe
from attacks.objectives import TensorChoice
from attacks.optimizers import Adam, Lbfgs, Sgd
from attacks.problem import Problem

LBFGS_PATIENCE = 5
"""Outer L-BFGS steps without a lower objective after which a restart ends."""


class InvertingGradients(Attack[InvertingGradientsConfig]):
    """Find images whose gradient points where the observed one does (equation 4).

    argmin over x of 1 - cos(grad L(f(x), y), g) + weight TV(x), by Adam on the sign of its gradient, images
    clamped to [0, 1] after each step; other costs, optimizers and subsets of tensors are those of the
    reference implementation. Restarts are compared by the matching cost without total variation. Labels are
    those granted, else inferred (`attacks.labels`). A weight delta counts as one step of its length, or with
    `unroll` is matched by simulating the local steps (section 5 and appendix).
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
        optimizer=lambda problem: _optimizer(config, problem),
        unroll=config.unroll,
        init_image=config.init_image,
        init_jitter=config.init_jitter,
        tensors=TensorChoice(config.tensors, config.tensor_count, config.tensor_weights),
    )


def _optimizer(config: InvertingGradientsConfig, problem: Problem) -> Adam | Sgd | Lbfgs:
    if config.optimizer == "lbfgs":
        return Lbfgs(config.iterations, solved=0.0, patience=LBFGS_PATIENCE)
    image = problem.task.observation.image
    black = torch.zeros(image.channels, 1, 1, device=problem.device)
    return (Adam if config.optimizer == "adam" else Sgd)(
        iterations=config.iterations,
        lr=config.lr,
        signed=config.signed,
        decay=config.decay,
        box=(image.normalise(black), image.normalise(black + 1)) if config.boxed else None,
    )
