"""GGL's configuration and card, read without torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from attacks.cards_generative import PRIOR
from attacks.compatibility import labels_unreadable, matches_lengths
from fl.cards import AttackCard, Reference, Resources, Setting, StageRequest
from fl.generators.config import GeneratorConfig, generator_stage, generator_unfit
from fl.specs import Config, TrialSpec

Optimizer = Literal["cma", "turbo", "adam", "random"]

EVALUATIONS = {"cma": 40_000, "turbo": 1000, "adam": 2500, "random": 40_000}
"""Li et al. 2022, appendix B; for CMA-ES 800 generations of 50."""

POPULATION = {"cma": 50, "turbo": 10, "adam": 1, "random": 50}
"""Likewise."""


class GglConfig(Config):
    """Generative gradient leakage: the latent vector whose image has the observed gradient."""

    prior: GeneratorConfig = Field(default_factory=GeneratorConfig, description="the generator")
    optimizer: Optimizer = Field("cma", description="of the latent vector; random: a floor for the others")
    evaluations: int | None = Field(
        None,
        ge=1,
        description="gradient evaluations of one restart, whatever the optimizer; as published for cma: "
        "40,000 (800 generations of 50), turbo: 1,000, adam: 2,500; random: as cma",
    )
    population: int | None = Field(
        None, ge=2, description="latent vectors at a time; as published, cma: 50, turbo: 10; adam: always 1"
    )
    restarts: int = Field(4, ge=1, description="independent searches; the lowest objective of all is kept")
    cost: Literal["l2", "l1", "cosine"] = Field(
        "l2",
        description="distance between gradients; l2: squared, l1: absolute differences, summed in each "
        "tensor, then their mean over tensors; cosine: of all tensors as one vector",
    )
    layer_weights: Literal["none", "released"] = Field(
        "none", description="released: the i-th three tensors of the model count 2^-i, i from 0 to 19"
    )
    kl: float = Field(
        0.1, ge=0, description="weight of the divergence of a latent vector's entries from N(0, 1)"
    )
    kl_scale: Literal["released", "gradient"] = Field(
        "released",
        description="unit of that weight; released: 1, gradient: the distance of the observed gradient from "
        "zero, so that it does not matter how long gradients are",
    )
    latent_norm: float = Field(
        0.0, ge=0, description="weight of (|z|^2 - k)^2, k being the entries of a latent vector z"
    )
    tanh: bool = Field(False, description="the generator is given tanh(z)")
    lr: float = Field(0.1, gt=0, description="step size of adam")
    schedule: Literal["signed", "cosine"] = Field(
        "signed",
        description="of adam; signed: steps along the slope's sign, a tenth after 3/8, 5/8 and 7/8 of them; "
        "cosine: along the slope, growing from 0 at first and falling to 0 in the last quarter",
    )
    box: float = Field(2.0, gt=0, description="turbo: entries of a latent vector are in [-box, box]")

    @property
    def budget(self) -> int:
        """Evaluations of one restart."""
        return EVALUATIONS[self.optimizer] if self.evaluations is None else self.evaluations

    @property
    def side_by_side(self) -> int:
        """Latent vectors at a time."""
        if self.optimizer == "adam" or self.population is None:
            return POPULATION[self.optimizer]
        return self.population


def _compatible(config: GglConfig, setting: Setting) -> str | None:
    if config.prior.checkpoint is None and not setting.threat_model.knowledge.public_data:
        return "its generator is trained on public images, which needs knowledge.public_data"
    if reason := generator_unfit(config.prior, setting, labels=True):
        return reason
    if config.cost != "cosine" and (reason := matches_lengths(setting)):
        return reason
    return labels_unreadable(setting)


def _stages(config: GglConfig, spec: TrialSpec) -> list[StageRequest]:
    return generator_stage(config.prior, spec, name=PRIOR)


def _evaluations(config: GglConfig) -> int:
    return config.restarts * config.budget


GGL = AttackCard(
    name="ggl",
    version=1,
    summary="Search a generator's latent space for the image that has the observed gradient.",
    config=GglConfig,
    implementation="attacks.ggl:Ggl",
    reference=Reference(
        "Li, Zhang, Liu and Liu 2022, Auditing Privacy Defenses in Federated Learning via Generative "
        "Gradient Leakage, arXiv 2203.15696"
    ),
    family="gradient_inversion",
    observes=frozenset({"update", "aggregate"}),
    evaluations=_evaluations,
    compatible=_compatible,
    stages=_stages,
    resources=Resources(gpus=0.25),
)

CARDS: tuple[AttackCard[Any], ...] = (GGL,)
