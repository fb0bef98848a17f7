"""GMI's configuration and card, read without torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from attacks.inversion.config import (
    CriticPrior,
    DiversityConfig,
    critic_prior,
    one_class_per_image,
    prior_stages,
    prior_unusable,
    require_critic,
)
from fl.cards import AttackCard, Reference, Resources, Setting, StageRequest
from fl.specs import Config, TrialSpec


class GmiConfig(Config):
    """Generative model inversion: latent vectors whose images look real and like the label."""

    prior: CriticPrior = Field(
        default_factory=critic_prior, description="the generator, with its critic (critic: true)"
    )
    samples: int = Field(10, ge=1, description="images per label; all are handed over, none is chosen")
    iterations: int = Field(1500, ge=1, description="steps of gradient descent with momentum")
    lr: float = Field(2e-2, gt=0, description="step size; as released: 2e-2 for faces, 1e-2 for digits")
    momentum: float = Field(0.9, ge=0, lt=1)
    identity_weight: float = Field(
        100.0, ge=0, description="weight of the attacked model's cross-entropy; the critic's score has 1"
    )
    clamp: float = Field(
        1.0, gt=0, description="entries of a latent vector are kept in [-clamp, clamp] from the first step on"
    )
    diversity: DiversityConfig = Field(
        default_factory=DiversityConfig, description="FedInverse's term; weight: 0 is GMI alone"
    )

    @model_validator(mode="after")
    def _prior_has_a_critic(self) -> GmiConfig:
        require_critic(self.prior, "the attack minimises the critic's score")
        return self


def _compatible(config: GmiConfig, setting: Setting) -> str | None:
    return one_class_per_image(setting) or prior_unusable(config.prior, setting)


def _stages(config: GmiConfig, spec: TrialSpec) -> list[StageRequest]:
    return prior_stages(config.prior, spec)


def _evaluations(config: GmiConfig) -> int:
    return config.iterations


GMI = AttackCard(
    name="gmi",
    version=1,
    summary="Search a generator's latent space for images that the model takes for a label.",
    config=GmiConfig,
    implementation="attacks.inversion.gmi:Gmi",
    reference=Reference(
        "Zhang, Jia, Pei, Wang, Li and Song 2020, The Secret Revealer: Generative Model-Inversion Attacks "
        "Against Deep Neural Networks, CVPR, arXiv 1911.07135; with the term for diversity of Wu et al. "
        "2024, FedInverse: Evaluating Privacy Leakage in Federated Learning, ICLR"
    ),
    family="model_inversion",
    observes=frozenset({"global_model"}),
    evaluations=_evaluations,
    compatible=_compatible,
    stages=_stages,
    resources=Resources(gpus=0.25),
)

CARDS: tuple[AttackCard[Any], ...] = (GMI,)
