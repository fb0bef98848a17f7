"""Parameter difference: images whose gradient of the layers that were not frozen explains what they moved."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from attacks.base import Attack, Reconstruction
from fl.cards import AttackCard
from fl.specs import Config


class DifferenceConfig(Config):
    iterations: int = 20


class ParameterDifference(Attack[DifferenceConfig]):
    def solve(self, tasks, env):
        for task in tasks:
            seen, steps = task.observation, task.config.iterations
            labels, local = seen.knowledge.labels, seen.knowledge.local_training
            assert labels is not None
            assert local is not None
            model = env.build(seen.sent)
            moved = {name: -tensor / (local.lr * local.steps) for name, tensor in seen.update.tensors.items()}
            free = [model.get_parameter(name) for name in moved]
            shape = (len(labels), *seen.image.shape)
            inputs = torch.randn(shape, generator=task.streams.torch("first_guess", restart=0))
            inputs.requires_grad_()
            optimizer = torch.optim.Adam([inputs], lr=0.1)
            for _ in range(steps):
                loss = F.binary_cross_entropy_with_logits(model(inputs), labels)
                gradients = torch.autograd.grad(loss, free, create_graph=True)
                cost = sum((g - m).square().sum() for g, m in zip(gradients, moved.values(), strict=True))
                (inputs.grad,) = torch.autograd.grad(cost, [inputs])
                optimizer.step()
            images = seen.image.denormalise(inputs.detach()).clamp(0, 1)
            yield Reconstruction(task.task_id, images, None, {"matching": cost.item()}, steps, steps)


def compatible(config, setting):
    if setting.data.task.loss != "binary_cross_entropy":
        return "it is written for sigmoid outputs"
    known = setting.threat_model.knowledge.labels == "known"
    return None if known else "it needs knowledge.labels: known"


CARD = AttackCard(
    name="parameter_difference",
    version=1,
    summary="Matches the parameter difference of the layers that are not frozen.",
    config=DifferenceConfig,
    implementation="fake_parameter_difference:ParameterDifference",
    family="gradient_inversion",
    observes=frozenset({"update"}),
    evaluations=lambda config: config.iterations,
    compatible=compatible,
)
