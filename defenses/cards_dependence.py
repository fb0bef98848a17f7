"""Cards of the defenses that make representations depend less on the images, read without torch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from defenses.cards_representation import bottleneck_budget
from fl.cards import DefenseCard, NoiseBudget, Reference, Setting
from fl.specs import Config

Kernel = Literal["gaussian", "linear"]
Measure = Literal["hsic", "coco"]
Estimator = Literal["released", "unbiased", "cka", "spectral"]

_MEASURES = "Hilbert-Schmidt independence criterion, or constrained covariance"
_OF_MEASURE: dict[str, tuple[str, ...]] = {
    "hsic": ("released", "unbiased", "cka"),
    "coco": ("released", "spectral"),
}
_UNITS = {
    ("hsic", "released"): "normalised HSIC, from 0 to batch size - 1",
    ("hsic", "unbiased"): "HSIC of the kernels",
    ("hsic", "cka"): "CKA, from 0 to 1",
    ("coco", "released"): "constrained covariance (Frobenius norm)",
    ("coco", "spectral"): "constrained covariance",
}
_GRIDS = {
    ("hsic", "released"): (0.05, 0.1, 0.5, 2.0),
    ("hsic", "unbiased"): (1.0, 10.0, 1e2, 1e3),
    ("hsic", "cka"): (0.1, 0.3, 1.0, 3.0),
    ("coco", "released"): (0.1, 1.0, 10.0, 100.0),
    ("coco", "spectral"): (0.1, 1.0, 10.0, 100.0),
}
_LINEAR_GRIDS = {
    ("hsic", "unbiased"): (1e-4, 1e-3, 1e-2, 1e-1),
    ("coco", "released"): (1e-3, 1e-2, 1e-1, 1.0),
    ("coco", "spectral"): (1e-3, 1e-2, 1e-1, 1.0),
}
"""Where kernels are not near 1 and what is not normalised is larger."""


class DependenceConfig(Config):
    """How dependence is measured over a batch."""

    measure: Measure = Field("hsic", description=_MEASURES)
    estimator: Estimator = Field(
        "released",
        description="released: as in the authors' code; for hsic also unbiased (not normalised) and cka; "
        "for coco also spectral, by its definition",
    )
    bandwidth: float = Field(
        5.0,
        ge=0,
        description="of Gaussian kernels, whose distance is the root mean square over entries; 0: the median "
        "rule",
    )

    @model_validator(mode="after")
    def _estimator_is_of_the_measure(self) -> Self:
        allowed = _OF_MEASURE[self.measure]
        if self.estimator not in allowed:
            raise ValueError(
                f"expected estimator {' or '.join(allowed)} for measure {self.measure}, got {self.estimator}"
            )
        return self

    @property
    def smallest_batch(self) -> int:
        """Images that an estimate needs to say anything."""
        return {"unbiased": 4, "cka": 3}.get(self.estimator, 2)


class BidoConfig(DependenceConfig):
    """Hidden layers that depend less on the images and more on the labels."""

    lambda_x: float = Field(0.05, ge=0, description="weight of the hidden layers' dependence on the images")
    label_ratio: float = Field(
        10.0, ge=0, description="weight of their dependence on the labels, lambda_y, in units of lambda_x"
    )
    kernel: Kernel = Field("gaussian", description="of the images, and of the hidden layers")
    label_kernel: Kernel = Field("linear", description="of the labels")


class MidDependenceConfig(DependenceConfig):
    """Logits that depend less on the images."""

    measure: Measure = Field("coco", description=_MEASURES)
    lambda_x: float = Field(1.0, ge=0, description="weight of the logits' dependence on the images")
    kernel: Kernel = Field("gaussian", description="of the images")
    logit_kernel: Kernel = Field("linear", description="of the logits")


class MidVibConfig(Config):
    """A variational bottleneck in place of the features."""

    beta: float = Field(1e-3, ge=0, description="weight of the latents' divergence from N(0, 1) in the loss")
    bottleneck: int | None = Field(
        None, ge=1, le=65536, description="latents per image; null: half as many as there are features"
    )


def _dependence_budget(config: BidoConfig | MidDependenceConfig) -> NoiseBudget:
    key = (config.measure, config.estimator)
    return NoiseBudget(
        field="lambda_x",
        unit=f"weight in the loss of {_UNITS[key]}",
        domain="model",
        stronger="higher",
        off=0.0,
        grid=(_LINEAR_GRIDS if config.kernel == "linear" else {}).get(key, _GRIDS[key]),
    )


def _dependence_compatible(config: BidoConfig | MidDependenceConfig, setting: Setting) -> str | None:
    federation = setting.federation
    if not config.lambda_x or federation is None:
        return None
    largest = max(federation.batch_sizes or (federation.batch_size,))
    if largest >= config.smallest_batch:
        return None
    return (
        f"dependence ({config.measure}, {config.estimator}) is measured over batches of at least "
        f"{config.smallest_batch} images (batches of {largest})"
    )


def _bido_unmirrored(config: BidoConfig) -> str:
    return (
        "the hidden layers' dependence on images and labels is part of the loss; the simulated client has "
        "the same loss, for nothing in it is drawn"
    )


def _mid_dependence_unmirrored(config: MidDependenceConfig) -> str:
    return (
        "the logits' dependence on the images is part of the loss; the simulated client has the same loss, "
        "for nothing in it is drawn"
    )


def _mid_vib_unmirrored(config: MidVibConfig) -> str:
    return (
        "the latents are drawn and their divergence is added before the gradient; the simulated client takes "
        "one image's latents from the head's gradient, and else their means, without the gradients that "
        "depend on the draw"
    )


BIDO = DefenseCard(
    name="bido",
    version=1,
    summary="Train hidden layers to depend less on the images and more on the labels.",
    config=BidoConfig,
    implementation="defenses.bido:Bido",
    reference=Reference(
        "Peng, Liu, Zhang, Lan, Ye, Liu, Han 2022, Bilateral Dependency Optimization: Defending Against "
        "Model-inversion Attacks, KDD, arXiv 2206.05483; in federated training Wu et al. 2024, FedInverse: "
        "Evaluating Privacy Leakage in Federated Learning, ICLR"
    ),
    noise_budget=_dependence_budget,
    hooks=frozenset({"loss"}),
    mirrored=False,
    unmirrored=_bido_unmirrored,
    compatible=_dependence_compatible,
)

MID_VIB = DefenseCard(
    name="mid_vib",
    version=1,
    summary="A variational information bottleneck between features and head.",
    config=MidVibConfig,
    implementation="defenses.mid_vib:MidVib",
    reference=Reference(
        "Wang, Zhang, Jia 2021, Improving Robustness to Model Inversion Attacks via Mutual Information "
        "Regularization, AAAI, arXiv 2009.05241"
    ),
    noise_budget=bottleneck_budget,
    hooks=frozenset({"wrapper", "wrap_model", "loss"}),
    mirrored=False,
    unmirrored=_mid_vib_unmirrored,
)

MID_DEPENDENCE = DefenseCard(
    name="mid_dependence",
    version=1,
    summary="Train logits to depend less on the images.",
    config=MidDependenceConfig,
    implementation="defenses.mid_dependence:MidDependence",
    reference=Reference(
        "Wu et al. 2024, FedInverse: Evaluating Privacy Leakage in Federated Learning, ICLR, whose released "
        "code calls it MID; after Wang, Zhang, Jia 2021, arXiv 2009.05241"
    ),
    noise_budget=_dependence_budget,
    hooks=frozenset({"loss"}),
    mirrored=False,
    unmirrored=_mid_dependence_unmirrored,
    compatible=_dependence_compatible,
)

DEPENDENCE_CARDS: tuple[DefenseCard[Any], ...] = (BIDO, MID_VIB, MID_DEPENDENCE)
