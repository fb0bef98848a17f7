"""The built-in attacks: configurations and cards, read without torch.

Adaptive variants need no word here: whether a defense can be mirrored is on the defense's card, and every
gradient-matching attack applies the mirror it is handed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from attacks.cards_generative import CARDS as GENERATIVE_CARDS
from attacks.cards_ggl import CARDS as GGL_CARDS
from attacks.cards_gifd import CARDS as GIFD_CARDS
from attacks.cards_gradinversion import CARDS as GRADINVERSION_CARDS
from attacks.compatibility import labels_unreadable, matches_lengths, no_mean_image
from attacks.inversion.cards import INVERSION_CARDS
from fl.cards import AttackCard, Reference, Resources, Setting
from fl.errors import DataUnavailableError
from fl.specs import Config, NoConfig, added_later

ENGINE_VERSION = 6
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

    cost: Literal["cosine", "l2", "l1", "cosine_per_tensor"] = Field(
        "cosine", description="distance between gradients; cosine: of all tensors as one vector"
    )
    total_variation: float = Field(1e-4, ge=0, description="weight of the images' total variation")
    signed: bool = Field(True, description="the optimizer sees the sign of the gradient only")
    boxed: bool = Field(True, description="after every step images are clamped to [0, 1]")
    lr: float = Field(0.1, gt=0, description="step in normalised image space; lbfgs: always 1")
    decay: bool = Field(True, description="divide lr by 10 after 3/8, 5/8 and 7/8 of the iterations")
    iterations: int = Field(4800, ge=1)
    restarts: int = Field(1, ge=1, description="first guesses tried; the lowest matching cost is kept")
    init: Literal["randn", "rand", "zeros", "mean", "image"] = Field(
        "randn",
        description="first guess in normalised space: N(0, 1), U(-1, 1), zeros, the mean public image, or "
        "that of init_image",
    )
    unroll: bool = Field(
        False, description="match a weight delta by simulating all local steps, not one step of their length"
    )
    optimizer: Literal["adam", "sgd", "lbfgs"] = added_later(
        "adam", description="sgd: plain gradient descent; lbfgs: unsigned, without box or decay"
    )
    tensors: Literal["all", "first", "last", "largest"] = added_later(
        "all", description="which observed tensors are matched: the model's first or last, or largest in norm"
    )
    tensor_count: int | None = added_later(None, ge=1, description="how many, unless tensors: all")
    tensor_weights: Literal["equal", "linear", "exp"] = added_later(
        "equal", description="weight of the i-th of P observed tensors: 1, (P - i) / P, or e^-i"
    )
    init_image: str | None = added_later(None, min_length=1, description="init: image: a picture file")
    init_jitter: float = added_later(
        0.0, ge=0, description="init zeros, mean, image: standard deviation of noise, so that guesses differ"
    )

    @model_validator(mode="after")
    def _first_guess_is_whole(self) -> InvertingGradientsConfig:
        drawn = self.init in ("randn", "rand")
        if self.restarts > 1 and not drawn and not self.init_jitter:
            raise ValueError(
                f"expected restarts: 1 or an init_jitter with init: {self.init} (all would be alike)"
            )
        if drawn and self.init_jitter:
            raise ValueError(f"init_jitter needs init: zeros, mean or image, got {self.init}")
        if (self.init == "image") != (self.init_image is not None):
            raise ValueError("init: image and init_image: go together")
        return self

    @model_validator(mode="after")
    def _options_belong_together(self) -> InvertingGradientsConfig:
        if (self.tensors == "all") != (self.tensor_count is None):
            raise ValueError("tensor_count goes with tensors: first, last or largest")
        if self.optimizer == "lbfgs" and (self.signed or self.boxed or self.decay):
            raise ValueError("optimizer: lbfgs needs signed: false, boxed: false and decay: false")
        return self

    def resolved(self) -> dict[str, Any]:
        """Return the identity: the picture's place gives way to a digest of its content.

        Raises:
            DataUnavailableError: If the picture cannot be read.
        """
        values = super().resolved()
        if self.init_image is not None:
            values["init_image"] = _digest_of_picture(self.init_image)
        return values


def _digest_of_picture(file: str) -> str:
    from fl.data.folder_pixels import UnusableError, inspect

    try:
        content = Path(file).read_bytes()
        inspect(content)
    except OSError as error:
        reason = error.strerror or error
        raise DataUnavailableError(f"expected a picture, cannot read {file!r}: {reason}") from error
    except UnusableError as error:
        raise DataUnavailableError(f"{file}: {error}") from error
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _dlg_compatible(config: DlgConfig, setting: Setting) -> str | None:
    return matches_lengths(setting)


def _idlg_compatible(config: IdlgConfig, setting: Setting) -> str | None:
    return matches_lengths(setting) or labels_unreadable(setting)


def _inverting_gradients_compatible(config: InvertingGradientsConfig, setting: Setting) -> str | None:
    if config.unroll:
        reason = _cannot_unroll(setting)
    elif config.cost in ("l2", "l1"):
        reason = matches_lengths(setting)
    else:
        reason = None
    if reason is None and config.init == "mean":
        reason = no_mean_image(setting)
    return reason or labels_unreadable(setting)


def _cannot_unroll(setting: Setting) -> str | None:
    if setting.observes != "update":
        return "unroll: true simulates one client; a sum of several cannot be unrolled"
    if setting.form == "parameter_difference":
        return "unroll: true needs observe.form: shared (two checkpoints are taken for one gradient)"
    if setting.sees == "gradient":
        return "unroll: true needs federation.algorithm: fedavg (fedsgd takes no local steps)"
    if not setting.threat_model.knowledge.local_hyperparameters:
        return "unroll: true needs knowledge.local_hyperparameters"
    return None


def _mean_image_compatible(config: NoConfig, setting: Setting) -> str | None:
    return no_mean_image(setting)


def _lbfgs_evaluations(config: DlgConfig) -> int:
    """At most; solved or stuck restarts end early."""
    return config.restarts * (config.iterations * LBFGS_EVALUATIONS + 1)


def _inverting_gradients_evaluations(config: InvertingGradientsConfig) -> int:
    """Per local step, where unrolled."""
    each = LBFGS_EVALUATIONS if config.optimizer == "lbfgs" else 1
    return config.restarts * (config.iterations * each + 1)


def _always_side_by_side(config: Config) -> bool:
    return True


def _not_unrolled(config: InvertingGradientsConfig) -> bool:
    return not config.unroll


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
    side_by_side=_always_side_by_side,
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
    side_by_side=_always_side_by_side,
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
    evaluations=_inverting_gradients_evaluations,
    compatible=_inverting_gradients_compatible,
    resources=Resources(gpus=0.25),
    side_by_side=_not_unrolled,
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

CARDS: tuple[AttackCard[Any], ...] = (
    DLG,
    IDLG,
    INVERTING_GRADIENTS,
    *GRADINVERSION_CARDS,
    *GENERATIVE_CARDS,
    *GIFD_CARDS,
    *GGL_CARDS,
    *INVERSION_CARDS,
    RANDOM_GUESS,
    MEAN_IMAGE,
)
