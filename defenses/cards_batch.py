"""Configurations and cards of the defenses that change the batch before training, read without torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from fl.cards import DefenseCard, NoiseBudget, Reference, Setting
from fl.specs import Config


class InputNoiseConfig(Config):
    """Gaussian noise on every pixel of the training images."""

    sigma: float = Field(0.1, ge=0, description="standard deviation of a pixel, images in [0, 1]")
    clamp: bool = Field(True, description="bring noisy pixels back into [0, 1]")


class LabelSmoothingConfig(Config):
    """Labels mixed with the uniform distribution."""

    epsilon: float = Field(
        0.1, le=1, description="share of the uniform distribution; negative: sharper than one-hot"
    )


class MixupConfig(Config):
    """Images and labels mixed within the batch."""

    alpha: float = Field(0.4, ge=0, description="shares are drawn from Beta(alpha, alpha)")


def _input_noise_budget(config: InputNoiseConfig) -> NoiseBudget:
    return NoiseBudget(
        field="sigma",
        unit="standard deviation of a pixel in [0, 1]",
        domain="image",
        stronger="higher",
        off=0.0,
        grid=(0.01, 0.03, 0.1, 0.3),
    )


def _label_smoothing_budget(config: LabelSmoothingConfig) -> NoiseBudget:
    negative = config.epsilon < 0
    return NoiseBudget(
        field="epsilon",
        unit="share of the uniform distribution in a label",
        domain="label",
        stronger="lower" if negative else "higher",
        off=0.0,
        grid=(-0.01, -0.05, -0.1, -0.3) if negative else (0.05, 0.1, 0.3, 0.5),
    )


def _mixup_budget(config: MixupConfig) -> NoiseBudget:
    return NoiseBudget(
        field="alpha",
        unit="concentration of the shares around a half",
        domain="image",
        stronger="higher",
        off=0.0,
        grid=(0.1, 0.4, 1.0, 4.0),
    )


def _mixup_compatible(config: MixupConfig, setting: Setting) -> str | None:
    if config.alpha and setting.federation is not None and setting.federation.mean_batch_size == 1:
        return "an image alone in its batch can only be mixed with itself (batches of 1)"
    return None


def _input_noise_unmirrored(config: InputNoiseConfig) -> str:
    return (
        "noise goes into the images before the gradient; what is recovered are the noisy images, so the "
        "simulated client takes its guess for them and adds none"
    )


def _label_smoothing_unmirrored(config: LabelSmoothingConfig) -> str:
    return "labels change before the gradient; the simulated client smooths those of the guess"


def _mixup_unmirrored(config: MixupConfig) -> str:
    return "images and labels are mixed before the gradient; the simulated client mixes with draws of its own"


INPUT_NOISE = DefenseCard(
    name="input_noise",
    version=1,
    summary="Gaussian noise on the training images.",
    config=InputNoiseConfig,
    implementation="defenses.input_noise:InputNoise",
    reference=Reference(
        "Bishop 1995, Training with Noise is Equivalent to Tikhonov Regularization, Neural Computation 7(1)"
    ),
    noise_budget=_input_noise_budget,
    hooks=frozenset({"perturb_batch"}),
    mirrored=False,
    unmirrored=_input_noise_unmirrored,
)

LABEL_SMOOTHING = DefenseCard(
    name="label_smoothing",
    version=1,
    summary="Train on labels mixed with the uniform distribution.",
    config=LabelSmoothingConfig,
    implementation="defenses.label_smoothing:LabelSmoothing",
    reference=Reference(
        "Szegedy et al. 2016, Rethinking the Inception Architecture for Computer Vision, arXiv 1512.00567, "
        "section 7; as a defense (negative epsilon) Struppek et al. 2024, arXiv 2310.06549"
    ),
    noise_budget=_label_smoothing_budget,
    hooks=frozenset({"perturb_batch"}),
    mirrored=False,
    unmirrored=_label_smoothing_unmirrored,
)

MIXUP = DefenseCard(
    name="mixup",
    version=1,
    summary="Train on convex combinations of the images and labels of a batch.",
    config=MixupConfig,
    implementation="defenses.mixup:Mixup",
    reference=Reference(
        "Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization, arXiv 1710.09412, section 2"
    ),
    noise_budget=_mixup_budget,
    hooks=frozenset({"perturb_batch"}),
    mirrored=False,
    unmirrored=_mixup_unmirrored,
    compatible=_mixup_compatible,
)

BATCH_CARDS: tuple[DefenseCard[Any], ...] = (INPUT_NOISE, LABEL_SMOOTHING, MIXUP)
