"""An attack that answers grey, and fails for the seeds in `ERRATIC_FAILS`."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from attacks.base import Attack, Reconstruction, TaskFailure
from attacks.catalog import MEAN_IMAGE
from fl.cards import always_compatible
from fl.specs import Config


class ErraticConfig(Config):
    shade: float = 0.5


class Erratic(Attack[ErraticConfig]):
    def solve(self, tasks, env):
        for task in tasks:
            if str(task.streams.seed) in os.environ.get("ERRATIC_FAILS", ""):
                yield TaskFailure(task.task_id, "not today")
                continue
            shape = (task.observation.update.n_images, *task.observation.image.shape)
            yield Reconstruction(task.task_id, torch.full(shape, task.config.shade), None, {}, 3, 1)


CARD = replace(
    MEAN_IMAGE,
    name="erratic",
    family="gradient_inversion",
    config=ErraticConfig,
    implementation="erratic:Erratic",
    compatible=always_compatible,
)
