"""Attacks that search in the images of a generator: configurations and cards, read without torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from attacks.compatibility import labels_unreadable, matches_lengths
from fl.cards import AttackCard, Reference, Resources, Setting, StageRequest
from fl.generators.config import GeneratorConfig, generator_stage, generator_unfit
from fl.specs import Config, TrialSpec

PRIOR = "generator"
"""Under which a task's artifacts hold the generator."""


class GenerativeConfig(Config):
    """What is minimised in the images of a generator."""

    prior: GeneratorConfig = Field(default_factory=GeneratorConfig, description="the generator")
    cost: Literal["cosine", "l2", "l1", "cosine_per_tensor", "norm_per_tensor"] = Field(
        "cosine", description="distance between gradients; cosine: of all tensors as one vector"
    )
    total_variation: float = Field(1e-6, ge=0, description="weight of the images' total variation")
    variation: Literal["anisotropic", "frobenius"] = Field(
        "anisotropic", description="anisotropic: mean steps; frobenius: norms of four steps, summed"
    )
    image_norm: float = Field(0.0, ge=0, description="weight of the images' mean Euclidean norm")
    batch_norm: float = Field(
        0.0, ge=0, description="weight of the distance from known batch-norm statistics, where any are known"
    )
    latent_norm: float = Field(0.0, ge=0, description="weight of the latent vectors' mean Euclidean norm")


class GiasConfig(GenerativeConfig):
    """Generative gradient inversion: latent vectors first, then the generator's weights."""

    restarts: int = Field(3, ge=1, description="first latent vectors; the lowest matching cost goes on")
    latent_iterations: int = Field(500, ge=0, description="Adam steps on latent vectors")
    latent_lr: float = Field(3e-2, gt=0, description="their size")
    parameter_iterations: int = Field(
        5000,
        ge=0,
        description="Adam steps on the synthesis's weights, a copy per image; 0: latent search only",
    )
    parameter_lr: float = Field(1e-3, gt=0, description="their size")
    decay: float = Field(
        0.1, gt=0, le=1, description="what steps shrink by after 3/8, 5/8 and 7/8 of the iterations"
    )


def generator_unusable(config: GenerativeConfig, setting: Setting) -> str | None:
    """Return why gradients cannot be matched in the images of the generator."""
    if config.prior.checkpoint is None and not setting.threat_model.knowledge.public_data:
        return "its generator is trained on public images, which needs knowledge.public_data"
    if reason := generator_unfit(config.prior, setting, labels=True):
        return reason
    if config.cost in ("l2", "l1", "norm_per_tensor") and (reason := matches_lengths(setting)):
        return reason
    return labels_unreadable(setting)


def generator_stages(config: GenerativeConfig, spec: TrialSpec) -> list[StageRequest]:
    """Ask for the generator, which the attack finds as `PRIOR`."""
    return generator_stage(config.prior, spec, name=PRIOR)


def _evaluations(config: GiasConfig) -> int:
    return config.restarts * (config.latent_iterations + 1) + config.parameter_iterations + 1


def side_by_side(config: GenerativeConfig) -> bool:
    """Solve tasks as lanes."""
    return True


GIAS = AttackCard(
    name="gias",
    version=1,
    summary="Match the gradient in the images of a generator, then in the generator's weights.",
    config=GiasConfig,
    implementation="attacks.gias:Gias",
    reference=Reference(
        "Jeon, Kim, Lee, Oh and Ok 2021, Gradient Inversion with Generative Image Prior, arXiv 2110.14962"
    ),
    family="gradient_inversion",
    observes=frozenset({"update", "aggregate"}),
    evaluations=_evaluations,
    compatible=generator_unusable,
    stages=generator_stages,
    resources=Resources(gpus=0.25),
    side_by_side=side_by_side,
)

CARDS: tuple[AttackCard[Any], ...] = (GIAS,)
