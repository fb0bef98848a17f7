"""The floor of attacks on a global model, read without torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from attacks.inversion.config import CriticPrior, critic_prior, prior_stages, prior_unusable
from fl.cards import AttackCard, Resources, Setting, StageRequest
from fl.specs import Config, TrialSpec


class RandomPriorConfig(Config):
    """Random images of a generator."""

    prior: CriticPrior = Field(
        default_factory=critic_prior, description="the generator; that of the attack it is the floor of"
    )
    samples: int = Field(10, ge=1, description="images per label")


def _compatible(config: RandomPriorConfig, setting: Setting) -> str | None:
    return prior_unusable(config.prior, setting)


def _stages(config: RandomPriorConfig, spec: TrialSpec) -> list[StageRequest]:
    return prior_stages(config.prior, spec)


def _no_evaluations(config: RandomPriorConfig) -> int:
    return 0


RANDOM_PRIOR = AttackCard(
    name="random_prior",
    version=1,
    summary="Floor: random images of the prior, whatever the label.",
    config=RandomPriorConfig,
    implementation="attacks.inversion.random_prior:RandomPrior",
    family="floor",
    observes=frozenset({"global_model"}),
    evaluations=_no_evaluations,
    compatible=_compatible,
    stages=_stages,
    resources=Resources(gpus=0.25),
)

CARDS: tuple[AttackCard[Any], ...] = (RANDOM_PRIOR,)
