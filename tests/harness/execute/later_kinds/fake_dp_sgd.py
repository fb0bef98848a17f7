"""Like DP-SGD: Poisson batches, per-sample gradients clipped to 1, noise, a crude account of epsilon."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from defenses.base import Batch, ClientDefense, Defense, PrivacySpent
from defenses.norms import global_norm
from fl.cards import DefenseCard, NoiseBudget
from fl.specs import Config


class DpSgdConfig(Config):
    sigma: float = 1.0
    delta: float = 1e-5


class DpSgdClient(ClientDefense):
    def __init__(self, config, context):
        self.config, self.context = config, context

    def sampler(self, n, batch_size, epochs, stream):
        for _ in range(epochs * math.ceil(n / batch_size)):
            yield (torch.rand(n, generator=stream) < batch_size / n).nonzero().flatten()

    def gradients(self, step, batch):
        total = {name: torch.zeros_like(p) for name, p in step.trainer.parameters.items()}
        for i in range(len(batch)):
            one = super().gradients(step, Batch(batch.images[i : i + 1], batch.labels[i : i + 1], ("",)))
            scale = (1 / global_norm(one)).clamp(max=1)
            total = {key: total[key] + scale * one[key] for key in total}
        noise = {key: torch.randn(tensor.shape, generator=step.stream) for key, tensor in total.items()}
        return {k: (total[k] + self.config.sigma * noise[k]) / self.context.batch_size for k in total}


@dataclass(frozen=True)
class DpSgd(Defense[DpSgdConfig]):
    def for_client(self, context):
        return DpSgdClient(self.config, context)

    def guarantee(self, context):
        steps = context.rounds * context.steps
        epsilon = steps * math.sqrt(2 * math.log(1.25 * steps / self.config.delta)) / self.config.sigma
        return PrivacySpent(epsilon, self.config.delta, "example", "basic composition")


CARD = DefenseCard(
    name="fake_dp_sgd",
    version=1,
    summary="Like DP-SGD.",
    config=DpSgdConfig,
    implementation="fake_dp_sgd:DpSgd",
    hooks=frozenset({"sampler", "gradients"}),
    mirrored=False,
    noise_budget=lambda config: NoiseBudget("sigma", "clips", "gradient", "higher", None, (1.0,)),
)
