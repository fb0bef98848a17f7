"""A prior: principal components of public images, in whose span the gradient is matched."""

from __future__ import annotations

import torch

from attacks.base import Attack, Reconstruction
from fl.cards import AttackCard, StageRequest
from fl.losses import task_loss
from fl.specs import Config
from fl.types import Artifact


class PriorConfig(Config):
    components: int = 16
    iterations: int = 30


def stages(config, spec):
    needs = {"components": config.components, "public": (spec.public or spec.data).canonical}
    return [StageRequest("generator", "prior", "fake_prior:train", 1, needs)]


def train(config, inputs, context):
    images = context.public.images.flatten(1)
    _, _, directions = torch.linalg.svd(images - images.mean(0), full_matrices=False)
    return Artifact({"mean": images.mean(0), "basis": directions[: config["components"]].clone()})


class PriorAttack(Attack[PriorConfig]):
    def solve(self, tasks, env):
        for task in tasks:
            seen, prior, steps = task.observation, task.artifacts["generator"].tensors, task.config.iterations
            model, observed = env.build(seen.sent), seen.update.tensors
            code = torch.zeros(seen.update.n_images, len(prior["basis"]), requires_grad=True)
            optimizer = torch.optim.Adam([code], lr=0.1)
            for _ in range(steps):
                images = (prior["mean"] + code @ prior["basis"]).view(-1, *seen.image.shape)
                loss = task_loss(seen.task, model(seen.image.normalise(images)), seen.knowledge.labels)
                gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
                pairs = zip(gradients, observed.values(), strict=True)
                cost = sum((mine - theirs).square().sum() for mine, theirs in pairs)
                (code.grad,) = torch.autograd.grad(cost, [code])
                optimizer.step()
            yield Reconstruction(task.task_id, images.detach().clamp(0, 1), None, {}, steps, steps)


CARD = AttackCard(
    name="prior_attack",
    version=1,
    summary="Matches the gradient in the span of a prior.",
    config=PriorConfig,
    implementation="fake_prior:PriorAttack",
    family="gradient_inversion",
    observes=frozenset({"update"}),
    evaluations=lambda config: config.iterations,
    stages=stages,
)
