"""The built-in attacks: configurations and cards, read without torch.

Adaptive variants need no word here: whether a defense can be mirrored is on the defense's card, and every
gradient-matching attack applies the mirror it is handed.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from fl.cards import AttackCard, Reference, Resources, Setting
from fl.specs import Config, NoConfig

ENGINE_VERSION = 1
"""Bumped when results of gradient matching change; part of every trial id."""

LBFGS_EVALUATIONS = 20
"""Gradient evaluations of one outer L-BFGS step (its inner iterations)."""


class DlgConfig(Config):
    """Deep leakage from gradients: L-BFGS on images and label logits."""

    iterations: int = Field(300, ge=1, description="outer L-BFGS steps of 20 inner iterations each")
    restarts: int = Field(1, ge=1, description="first guesses tried; the lowest matching loss is kept")
    tolerance: float = Field(
        1e-8,
        ge=0,
        description="a loss below this share of the observed gradient's squared norm is solved: later "
        "restarts are left out; 0: never",
    )
    patience: int = Field(
        5, ge=1, description="outer steps without a lower loss (by a thousandth) after which a restart ends"
    )


class IdlgConfig(DlgConfig):
    """Improved deep leakage: labels first, then L-BFGS on images alone."""


class InvertingGradientsConfig(Config):
    """Inverting gradients: signed Adam on a cost between gradients plus total variation."""

    cost: Literal["cosine", "l2"] = Field("cosine", description="distance between gradients")
    total_variation: float = Field(1e-4, ge=0, description="weight of the images' total variation")
    signed: bool = Field(True, description="Adam sees the sign of the gradient only")
    boxed: bool = Field(True, description="after every step images are clamped to [0, 1]")
    lr: float = Field(0.1, gt=0, description="Adam's step, in normalised image space")
    decay: bool = Field(True, description="divide lr by 10 after 3/8, 5/8 and 7/8 of the iterations")
    iterations: int = Field(4800, ge=1)
    restarts: int = Field(1, ge=1, description="first guesses tried; the lowest matching cost is kept")
    init: Literal["randn", "rand", "zeros", "mean"] = Field(
        "randn",
        description="first guess in normalised space: N(0, 1), U(-1, 1), zeros, or the mean public image",
    )
    unroll: bool = Field(
        False, description="match a weight delta by simulating all local steps, not one step of their length"
    )

    @model_validator(mode="after")
    def _restarts_differ(self) -> InvertingGradientsConfig:
        if self.restarts > 1 and self.init in ("zeros", "mean"):
            raise ValueError(f"expected restarts: 1 with init: {self.init} (all would be alike)")
        return self


def _labels_unreadable(setting: Setting) -> str | None:
    """Return why labels that are not granted cannot be inferred from the head's gradient."""
    if setting.threat_model.knowledge.labels == "known":
        return None
    if not (setting.model.head_bias or setting.model.non_negative_features):
        return (
            "labels are read from the head's bias, or from its weights where features are never negative; "
            "this model has neither (knowledge.labels: known grants them)"
        )
    if _scale_unknown(setting):
        return "the labels behind a weight delta are counted, which needs knowledge.local_hyperparameters"
    return None


def _scale_unknown(setting: Setting) -> bool:
    """Whether a weight delta cannot be turned into a gradient for want of lr and steps."""
    return (
        setting.federation is not None
        and setting.federation.algorithm == "fedavg"
        and not setting.threat_model.knowledge.local_hyperparameters
    )


def _matches_lengths(setting: Setting) -> str | None:
    if _scale_unknown(setting):
        return "it matches lengths, so a weight delta needs knowledge.local_hyperparameters"
    return None


def _dlg_compatible(config: DlgConfig, setting: Setting) -> str | None:
    return _matches_lengths(setting)


def _idlg_compatible(config: IdlgConfig, setting: Setting) -> str | None:
    return _matches_lengths(setting) or _labels_unreadable(setting)


def _inverting_gradients_compatible(config: InvertingGradientsConfig, setting: Setting) -> str | None:
    if config.unroll:
        reason = _cannot_unroll(setting)
    elif config.cost == "l2":
        reason = _matches_lengths(setting)
    else:
        reason = None
    if reason is None and config.init == "mean" and not setting.threat_model.knowledge.public_data:
        reason = "init: mean needs knowledge.public_data"
    return reason or _labels_unreadable(setting)


def _cannot_unroll(setting: Setting) -> str | None:
    if setting.observes != "update":
        return "unroll: true simulates one client; a sum of several cannot be unrolled"
    if setting.federation is not None and setting.federation.algorithm != "fedavg":
        return "unroll: true needs federation.algorithm: fedavg (fedsgd takes no local steps)"
    if not setting.threat_model.knowledge.local_hyperparameters:
        return "unroll: true needs knowledge.local_hyperparameters"
    return None


def _mean_image_compatible(config: NoConfig, setting: Setting) -> str | None:
    if not setting.threat_model.knowledge.public_data:
        return "the mean public image needs knowledge.public_data"
    return None


def _lbfgs_evaluations(config: DlgConfig) -> int:
    """At most; solved or stuck restarts end early."""
    return config.restarts * (config.iterations * LBFGS_EVALUATIONS + 1)


def _adam_evaluations(config: InvertingGradientsConfig) -> int:
    """Per local step, where unrolled."""
    return config.restarts * (config.iterations + 1)


def _no_evaluations(config: NoConfig) -> int:
    return 0


DLG = AttackCard(
    name="dlg",
    version=1,
    summary="Deep leakage from gradients: match the gradient jointly in images and labels with L-BFGS.",
    config=DlgConfig,
    implementation="attacks.dlg:Dlg",
    reference=Reference("Zhu, Liu and Han 2019, Deep Leakage from Gradients, arXiv 1906.08935"),
    family="gradient_inversion",
    observes=frozenset({"update", "aggregate"}),
    evaluations=_lbfgs_evaluations,
    compatible=_dlg_compatible,
    resources=Resources(gpus=0.25),
)

IDLG = AttackCard(
    name="idlg",
    version=1,
    summary="Improved DLG: read the labels from the head's gradient, then match in images alone.",
    config=IdlgConfig,
    implementation="attacks.idlg:Idlg",
    reference=Reference("Zhao, Mopuri and Bilen 2020, iDLG, arXiv 2001.02610"),
    family="gradient_inversion",
    observes=frozenset({"update", "aggregate"}),
    evaluations=_lbfgs_evaluations,
    compatible=_idlg_compatible,
    resources=Resources(gpus=0.25),
)

INVERTING_GRADIENTS = AttackCard(
    name="inverting_gradients",
    version=1,
    summary="Match the gradient's direction with signed Adam and total variation.",
    config=InvertingGradientsConfig,
    implementation="attacks.inverting_gradients:InvertingGradients",
    reference=Reference("Geiping et al. 2020, Inverting Gradients, arXiv 2003.14053"),
    family="gradient_inversion",
    observes=frozenset({"update", "aggregate"}),
    evaluations=_adam_evaluations,
    compatible=_inverting_gradients_compatible,
    resources=Resources(gpus=0.25),
)

RANDOM_GUESS = AttackCard(
    name="random_guess",
    version=1,
    summary="Floor: uniform noise in [0, 1].",
    config=NoConfig,
    implementation="attacks.floors:RandomGuess",
    family="floor",
    observes=frozenset({"update", "aggregate", "global_model"}),
    evaluations=_no_evaluations,
)

MEAN_IMAGE = AttackCard(
    name="mean_image",
    version=1,
    summary="Floor: the mean of the public images.",
    config=NoConfig,
    implementation="attacks.floors:MeanImage",
    family="floor",
    observes=frozenset({"update", "aggregate", "global_model"}),
    evaluations=_no_evaluations,
    compatible=_mean_image_compatible,
)

CARDS: tuple[AttackCard[Any], ...] = (DLG, IDLG, INVERTING_GRADIENTS, RANDOM_GUESS, MEAN_IMAGE)
