"""An attack that answers grey, fails when it is told to, and can waste the time of others."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from attacks.base import Attack, Reconstruction, TaskFailure
from attacks.catalog import MEAN_IMAGE
from fl.cards import always_compatible
from fl.specs import Config

SOLVED: list[str] = []
"""Every task that was begun."""


class MoodyConfig(Config):
    greedy_seed: int = -1
    shade: float = 0.5


class Moody(Attack[MoodyConfig]):
    """Fails for the seeds in `MOODY_FAILS`; seeds of the greedy kind (even or odd) take all time there is."""

    def solve(self, tasks, env):
        for task in tasks:
            SOLVED.append(task.task_id)
            while task.streams.seed % 2 == task.config.greedy_seed:
                if env.stopping(task.task_id):
                    break
            if env.stopping(task.task_id) or str(task.streams.seed) in os.environ.get("MOODY_FAILS", ""):
                yield TaskFailure(task.task_id, "not today")
                continue
            shape = (task.observation.update.n_images, *task.observation.image.shape)
            images = torch.full(shape, task.config.shade)
            yield Reconstruction(task.task_id, images, None, {}, 3, 1)


CARD = replace(
    MEAN_IMAGE,
    name="moody",
    config=MoodyConfig,
    implementation="moody:Moody",
    compatible=always_compatible,
)
