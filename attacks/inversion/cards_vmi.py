"""Configuration and card of variational model inversion, read without torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from attacks.inversion.config import (
    SPLIT,
    WEIGHT,
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

FEWEST_ENTRIES = 2
"""That the first scale of a flow must see, so that there are two halves."""


class VmiDiversityConfig(DiversityConfig):
    """FedInverse's term, off by default, of each label's images: no label's distribution knows another's."""

    weight: float = Field(0.0, description=WEIGHT)
    split: Literal["halves", "per_label"] = Field("per_label", description=SPLIT)


class VmiConfig(Config):
    """Variational model inversion: a distribution of latent vectors for each label."""

    prior: CriticPrior = Field(default_factory=critic_prior, description="the generator")
    posterior: Literal["gaussian", "flow"] = Field(
        "flow", description="gaussian: with full covariance; flow: additive couplings"
    )
    layers: Literal["one", "all"] = Field(
        "one",
        description="one: a latent vector per image; all: one for each layer of a generator of architecture: "
        "styled, each from a distribution of its own",
    )
    samples: int = Field(10, ge=1, description="images per label, drawn when all is done")
    iterations: int = Field(9688, ge=1, description="released: 31 epochs of 10,000 images")
    batch_size: int = Field(32, ge=1, description="images per label and iteration")
    lr: float = Field(2e-4, gt=0, description="step of gradient descent; some 2e-2 for few iterations")
    momentum: float = Field(0.9, ge=0, lt=1)
    clip: float | None = Field(
        None, gt=0, description="longest slope, over all parameters of a label; 10 with large steps"
    )
    kl: float = Field(1e-3, ge=0, description="weight of the divergence from N(0, I), the mean over layers")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    entropy: float = Field(
        0.0,
        ge=0,
        description="weight of the predictions' entropy, which is taken from what is minimised",
    )
    flow_steps: int = Field(10, ge=1, description="flow: steps of each scale")
    flow_scales: int = Field(3, ge=1, description="flow: scales; each sees half the entries of the next one")
    flow_hidden: int = Field(100, ge=1, description="flow: units of each of a coupling's two hidden layers")
    diversity: VmiDiversityConfig = Field(
        default_factory=VmiDiversityConfig, description="FedInverse's term, of the images of a batch"
    )

    @model_validator(mode="after")
    def _diversity_is_possible(self) -> VmiConfig:
        if self.diversity.split == "halves":
            raise ValueError("expected diversity.split: per_label (a batch is of one label), got halves")
        if self.diversity.features == "critic":
            require_critic(self.prior, "diversity.features: critic asks for it")
        return self


def _compatible(config: VmiConfig, setting: Setting) -> str | None:
    reason = one_class_per_image(setting) or prior_unusable(config.prior, setting)
    return reason or _unlayered(config) or _unsplittable(config)


def _unlayered(config: VmiConfig) -> str | None:
    prior = config.prior
    family = prior.architecture if prior.checkpoint is None else prior.released_layout.family
    if config.layers == "one" or family == "styled":
        return None
    return f"layers: all needs a generator with a style per layer (prior.architecture: styled), got {family}"


def _unsplittable(config: VmiConfig) -> str | None:
    prior = config.prior
    latent = prior.latent if prior.checkpoint is None else prior.released_layout.latent
    first = -(-latent // 2 ** (config.flow_scales - 1))
    if config.posterior == "gaussian" or first >= FEWEST_ENTRIES:
        return None
    return f"{config.flow_scales} scales are too many for latent vectors of {latent} entries"


def _stages(config: VmiConfig, spec: TrialSpec) -> list[StageRequest]:
    return prior_stages(config.prior, spec)


def _evaluations(config: VmiConfig) -> int:
    return config.iterations


VMI = AttackCard(
    name="vmi",
    version=1,
    summary="Fit a distribution over a generator's latent vectors to each label's posterior.",
    config=VmiConfig,
    implementation="attacks.inversion.vmi:Vmi",
    reference=Reference(
        "Wang, Fu, Li, Khisti, Zemel and Makhzani 2021, Variational Model Inversion Attacks, arXiv 2201.10787"
    ),
    family="model_inversion",
    observes=frozenset({"global_model"}),
    evaluations=_evaluations,
    compatible=_compatible,
    stages=_stages,
    resources=Resources(gpus=0.25, memory_mib=2048),
)

CARDS: tuple[AttackCard[Any], ...] = (VMI,)
