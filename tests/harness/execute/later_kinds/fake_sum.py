"""A sum over clients: its labels are read from the head's bias, and answered with public images of them."""

from __future__ import annotations

import torch

from attacks.base import Attack, Reconstruction
from fl.cards import AttackCard
from fl.specs import Config


class SumConfig(Config):
    """Nothing to choose."""


class SumAttack(Attack[SumConfig]):
    def solve(self, tasks, env):
        for task in tasks:
            update, public = task.observation.update, task.public
            bias = update.tensors["head.bias"]  # mean softmax minus the share of each class
            labels = bias.argsort()[: len(task.observation.clients)]
            means = [public.images[public.labels == label].mean(0) for label in labels]
            yield Reconstruction(task.task_id, torch.stack(means), labels, {}, 0, 1)


CARD = AttackCard(
    name="sum_attack",
    version=1,
    summary="Reads which classes are behind a sum of updates.",
    config=SumConfig,
    implementation="fake_sum:SumAttack",
    family="gradient_inversion",
    observes=frozenset({"aggregate"}),
    evaluations=lambda config: 0,
)
