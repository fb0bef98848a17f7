"""GradInversion: its configuration and card, read without torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from attacks.compatibility import labels_unreadable, matches_lengths, no_mean_image
from fl.cards import AttackCard, Reference, Resources, Setting
from fl.specs import Config


class GradInversionConfig(Config):
    """GradInversion: gradients, batch-norm statistics, image priors and restarts that agree."""

    cost: Literal["norm_per_tensor", "l2", "cosine"] = Field(
        "norm_per_tensor",
        description="distance between gradients; norm_per_tensor: sum over tensors of Euclidean norms",
    )
    matching: float = Field(1e-3, gt=0, description="weight of the distance between gradients")
    batch_norm: float = Field(
        0.1,
        ge=0,
        description="weight of the distance from the batch-norm statistics that the threat model grants; it "
        "is left out where it grants none or the model has no batch norm",
    )
    total_variation: float = Field(1e-4, ge=0, description="weight of the images' total variation")
    variation: Literal["frobenius", "anisotropic"] = Field(
        "frobenius",
        description="frobenius: four Frobenius norms, diagonals included; anisotropic: mean absolute steps",
    )
    image_norm: float = Field(1e-6, ge=0, description="weight of the images' mean Euclidean norm")
    group: float = Field(
        0.01, ge=0, description="weight of the distance from the mean of all restarts, which step together"
    )
    group_start: int = Field(500, ge=0, description="first iteration at which that mean is taken")
    group_every: int = Field(100, ge=1, description="iterations between two such means")
    labels: Literal["inferred", "joint", "refined"] = Field(
        "inferred",
        description="inferred: granted, else read from the head's gradient; joint: granted, else optimised "
        "with the images; refined: optimised from what is granted or read",
    )
    init: Literal["randn", "mean"] = Field(
        "randn", description="first guess in normalised space: N(0, 1), or the mean public image"
    )
    init_jitter: float = Field(
        0.0, ge=0, description="init: mean: standard deviation of noise, so that guesses differ"
    )
    lr: float = Field(0.1, gt=0, description="Adam's step in normalised image space")
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam's decay of the mean gradient")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam's decay of the squared gradient")
    signed: bool = Field(False, description="the optimizer sees the sign of the gradient only")
    boxed: bool = Field(False, description="after every step images are clamped to [0, 1]")
    warmup: int = Field(50, ge=0, description="iterations in which the step grows to lr")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="after warm-up the step falls to 0 along half a cosine wave, or stays"
    )
    jitter: float = Field(
        0.2, ge=0, description="standard deviation, in steps, of normal noise on the images at every step"
    )
    iterations: int = Field(20_000, ge=1)
    restarts: int = Field(1, ge=1, description="first guesses; the lowest distance between gradients is kept")

    @model_validator(mode="after")
    def _first_guesses_differ(self) -> GradInversionConfig:
        if self.init == "randn" and self.init_jitter:
            raise ValueError("init_jitter needs init: mean, got randn")
        if self.init == "mean" and self.restarts > 1 and not (self.init_jitter or self.jitter):
            raise ValueError("expected restarts: 1, an init_jitter or a jitter with init: mean (all alike)")
        return self


def _compatible(config: GradInversionConfig, setting: Setting) -> str | None:
    reason = matches_lengths(setting) if config.cost != "cosine" else None
    if reason is None and config.init == "mean":
        reason = no_mean_image(setting)
    if reason is None and config.batch_norm and setting.model.batch_norm:
        reason = _statistics_unknown(setting)
    if reason is None and config.labels != "joint":
        reason = labels_unreadable(setting)
    return reason


def _statistics_unknown(setting: Setting) -> str | None:
    """Return why the threat model's tier yields no statistics."""
    tier, federation = setting.threat_model.knowledge.batch_norm, setting.federation
    if tier == "proxy" and no_mean_image(setting) is not None:
        return "knowledge.batch_norm: proxy needs public images (knowledge.public_data: true)"
    if tier == "inferred" and federation is not None and federation.batch_norm == "eval":
        return (
            "knowledge.batch_norm: inferred needs running statistics that clients update and share "
            "(federation.batch_norm: train)"
        )
    return None


def _evaluations(config: GradInversionConfig) -> int:
    return config.restarts * (config.iterations + 1)


def _side_by_side(config: GradInversionConfig) -> bool:
    return True


GRADINVERSION = AttackCard(
    name="gradinversion",
    version=1,
    summary="Match gradients and batch-norm statistics under image priors; restarts that agree.",
    config=GradInversionConfig,
    implementation="attacks.gradinversion:GradInversion",
    reference=Reference("Yin et al. 2021, See through Gradients, arXiv 2104.07586"),
    family="gradient_inversion",
    observes=frozenset({"update", "aggregate"}),
    evaluations=_evaluations,
    compatible=_compatible,
    resources=Resources(gpus=0.25),
    side_by_side=_side_by_side,
)

CARDS: tuple[AttackCard[Any], ...] = (GRADINVERSION,)
