"""A learned inverter: ridge regression from simulated updates of public images to the images."""

from __future__ import annotations

import torch

from attacks.base import Attack, Reconstruction, TaskFailure
from fl.cards import AttackCard
from fl.specs import Config


class InverterConfig(Config):
    examples: int = 64
    ridge: float = 1e-3


class LearnedInverter(Attack[InverterConfig]):
    def solve(self, tasks, env):
        for task in tasks:
            if task.public is None:
                yield TaskFailure(task.task_id, "needs public images to learn from")
                continue
            sent, n = task.observation.sent, task.config.examples
            images, labels = task.public.images[:n], task.public.labels[:n]
            updates = [
                task.simulate(image[None], label[None], sent, task.streams.torch("simulation", example=i))
                for i, (image, label) in enumerate(zip(images, labels, strict=True))
            ]
            seen = torch.stack([flat(update) for update in updates])
            kernel = seen @ seen.T
            damped = kernel + task.config.ridge * kernel.diagonal().mean() * torch.eye(len(seen))
            weights = torch.linalg.solve(damped, images.flatten(1))
            guess = (flat(task.observation.update) @ seen.T) @ weights
            result = guess.view(1, *task.observation.image.shape).clamp(0, 1)
            yield Reconstruction(task.task_id, result, None, {}, len(updates), 1)


def flat(update):
    return torch.cat([tensor.detach().flatten() for tensor in update.tensors.values()])


CARD = AttackCard(
    name="learned_inverter",
    version=1,
    summary="Learns to invert updates that it simulates on public images.",
    config=InverterConfig,
    implementation="fake_learned_inverter:LearnedInverter",
    family="gradient_inversion",
    observes=frozenset({"update"}),
    evaluations=lambda config: config.examples,
)
