"""A defense that adds a pattern to every image: a public one, and a nudge that only clients know."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from defenses.base import ClientDefense, Defense
from fl.cards import DefenseCard, NoiseBudget, StageRequest
from fl.specs import Config
from fl.types import Artifact


class OffsetConfig(Config):
    strength: float = 0.3
    inverted: bool = False


def stages(config, spec):
    needs = {"public": (spec.public or spec.data).canonical, "sign": -1 if config.inverted else 1}
    pattern = StageRequest("pattern", "pattern", "offset:make_pattern", 1, needs)
    seed = {"seed": spec.seed}
    nudge = StageRequest("nudge", "nudge", "offset:make_nudge", 1, seed, (pattern.key,), private=True)
    return [pattern, nudge]


def make_pattern(config, inputs, context):
    images = context.public.images
    return Artifact({"pattern": config["sign"] * images.mean(0).sub(0.5).sign()}, {"of": "everyone"})


def make_nudge(config, inputs, context):
    (pattern,) = (artifact.tensors["pattern"] for artifact in inputs.values())
    draws = torch.rand(pattern.shape, generator=context.streams.torch("nudge"))
    return Artifact({"nudge": 0.02 * draws * pattern}, {"of": "patient-0"})


@dataclass(frozen=True)
class Offset(Defense[OffsetConfig]):
    def for_client(self, context):
        made = context.artifacts["pattern"].tensors["pattern"] + context.artifacts["nudge"].tensors["nudge"]
        return Adding(self.config.strength * made)

    def unperturb(self, images, labels, context):
        return images - self.config.strength * context.artifacts["pattern"].tensors["pattern"].to(images)


class Adding(ClientDefense):
    def __init__(self, offset):
        self.offset = offset

    def perturb_batch(self, step, batch):
        return replace(batch, images=batch.images + self.offset.to(batch.images))


BUDGET = NoiseBudget("strength", "share", domain="image", stronger="higher", off=0.0, grid=(0.1, 0.3))
CARD = DefenseCard(
    name="offset",
    version=1,
    summary="Adds a pattern.",
    config=OffsetConfig,
    implementation="offset:Offset",
    noise_budget=lambda config: BUDGET,
    hooks=frozenset({"perturb_batch"}),
    mirrored=False,
    unperturbs=True,
    stages=stages,
)
