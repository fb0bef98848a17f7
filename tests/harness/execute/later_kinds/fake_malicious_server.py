"""A malicious server that enlarges the head of the model it sends, and clients that look at what they get."""

from __future__ import annotations

from dataclasses import dataclass, replace

from defenses.base import ClientDefense, Defense
from fl.cards import DefenseCard, ManipulationCard, NoiseBudget
from fl.hooks import Refusal
from fl.specs import Config


class EnlargeConfig(Config):
    factor: float = 10.0


def enlarge(config, state, streams):
    weight = state.tensors["head.weight"] * config.factor
    return replace(state, tensors={**state.tensors, "head.weight": weight})


class WaryConfig(Config):
    bound: float = 0.6
    every: int = 1


class WaryClient(ClientDefense):
    def __init__(self, config):
        self.config = config

    def inspect(self, model, step):
        largest = model.get_parameter("head.weight").abs().max().item()
        return Refusal(f"a weight of {largest:.2g} in the head") if largest > self.config.bound else None


@dataclass(frozen=True)
class Wary(Defense[WaryConfig]):
    def for_client(self, context):
        return WaryClient(self.config) if context.client % self.config.every == 0 else ClientDefense()


MANIPULATION = ManipulationCard(
    name="enlarge",
    version=1,
    summary="Multiplies the head's weights.",
    config=EnlargeConfig,
    implementation="fake_malicious_server:enlarge",
)
CARD = DefenseCard(
    name="wary",
    version=1,
    summary="Refuses models with large weights in the head.",
    config=WaryConfig,
    implementation="fake_malicious_server:Wary",
    noise_budget=lambda config: NoiseBudget("bound", "largest weight", "model", "lower", None, (0.6,)),
    hooks=frozenset({"inspect"}),
    mirrored=False,
)
