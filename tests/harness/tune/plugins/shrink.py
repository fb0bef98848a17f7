"""A planted defense: it scales the update, which only attacks that match magnitudes fall for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import Field

from defenses.base import ClientDefense, Defense
from fl.cards import DefenseCard, NoiseBudget
from fl.specs import Config


class ShrinkConfig(Config):
    factor: float = Field(1.0, gt=0)


@dataclass(frozen=True)
class Shrink(Defense[ShrinkConfig]):
    def for_client(self, context):
        return ShrinkingClient(self.config.factor)


class ShrinkingClient(ClientDefense):
    def __init__(self, factor):
        self.factor = factor

    def protect(self, update, step):
        return replace(update, tensors={name: self.factor * each for name, each in update.tensors.items()})


CARD = DefenseCard(
    name="shrink",
    version=1,
    summary="Scale the update.",
    config=ShrinkConfig,
    implementation="shrink:Shrink",
    noise_budget=lambda config: NoiseBudget("factor", "factor", "update", "lower", 1.0, (0.1, 0.01)),
    hooks=frozenset({"protect"}),
    mirrored=False,
)
