"""GradInversion (Yin, Mallya, Vahdat, Alvarez, Kautz and Molchanov, CVPR 2021, arXiv 2104.07586)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch

from attacks import matching
from attacks.base import Attack, AttackEnv, AttackTask, Reconstruction, TaskFailure
from attacks.cards_gradinversion import GradInversionConfig
from attacks.matching import Recipe
from attacks.optimizers import Adam
from attacks.regularisers import Group

if TYPE_CHECKING:
    from attacks.problem import LabelsName, Problem

_LABELS: Mapping[str, LabelsName] = {"inferred": "infer", "joint": "joint", "refined": "refine"}


class GradInversion(Attack[GradInversionConfig]):
    """Find images with the observed gradient and the known batch-norm statistics (equations 1 and 7 to 11).

    argmin over x of a_g sum_i ||grad_i L(f(x), y) - g_i|| + a_b sum_l (||mean_l(x) - mean_l|| +
    ||var_l(x) - var_l||) + a_t TV(x) + a_n ||x|| + a_c ||x - mean over restarts||, by Adam with warm-up, a
    falling step and noise at every step. Restarts step together; their mean is pixel by pixel, without the
    paper's registration. The restart with the lowest distance between gradients is kept, at its last iterate.
    """

    def solve(
        self, tasks: Iterable[AttackTask[GradInversionConfig]], env: AttackEnv
    ) -> Iterator[Reconstruction | TaskFailure]:
        """Solve the tasks side by side."""
        return matching.solve(tasks, env, _recipe)


def _recipe(config: GradInversionConfig) -> Recipe:
    group = Group(config.group, config.group_start, config.group_every)
    return Recipe(
        cost=config.cost,
        matching=config.matching,
        total_variation=config.total_variation,
        variation=config.variation,
        image_norm=config.image_norm,
        batch_norm=config.batch_norm,
        group=group if config.group and config.restarts > 1 else None,
        labels=_LABELS[config.labels],
        init=config.init,
        init_jitter=config.init_jitter,
        restarts=config.restarts,
        optimizer=lambda problem: _optimizer(config, problem),
    )


def _optimizer(config: GradInversionConfig, problem: Problem) -> Adam:
    image = problem.task.observation.image
    black = torch.zeros(image.channels, 1, 1, device=problem.device)
    return Adam(
        iterations=config.iterations,
        lr=config.lr,
        signed=config.signed,
        decay=False,
        box=(image.normalise(black), image.normalise(black + 1)) if config.boxed else None,
        warmup=config.warmup,
        cosine=config.schedule == "cosine",
        jitter=config.jitter,
        betas=(config.beta1, config.beta2),
    )
