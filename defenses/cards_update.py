"""Configurations and cards of the defenses that act on the finished update, read without torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fl.cards import DefenseCard, NoiseBudget, Reference, Setting
from fl.specs import Config, added_later

NoiseScale = Literal["absolute", "relative"]
Scope = Literal["per_tensor", "global"]

_NOISE_SCALE = (
    "absolute: units of the gradient (a delta's noise is scaled by lr x local steps); "
    "relative: the root mean square of the update's own entries"
)


class GaussianConfig(Config):
    """Gaussian noise on every entry of the update."""

    sigma: float = Field(1e-3, ge=0, description="standard deviation, in units of `scale`")
    scale: NoiseScale = Field("absolute", description=_NOISE_SCALE)


class LaplaceConfig(Config):
    """Laplace noise on every entry of the update."""

    b: float = Field(
        1e-3, ge=0, description="scale of the distribution, in units of `scale`; its deviation is b sqrt(2)"
    )
    scale: NoiseScale = Field("absolute", description=_NOISE_SCALE)


class ClippingConfig(Config):
    """Clipping of the update's L2 norm."""

    bound: float = Field(
        1.0,
        gt=0,
        description="largest norm, in units of the gradient (of a delta: times lr x local steps)",
    )
    scope: Scope = added_later("global", description="global: one norm over all tensors; per_tensor: each's")


class PruningConfig(Config):
    """Zeroing of the smallest entries of each tensor, or of the whole update."""

    ratio: float = Field(0.2, ge=0, le=1, description="share of the entries set to zero")
    variant: Literal["standard", "as_released"] = Field(
        "standard", description="as_released: the kept entries lose their sign, as in the released notebook"
    )
    scope: Scope = added_later(
        "per_tensor", description="where the share is taken: of each tensor, or of all"
    )
    mirror: Literal["support", "threshold"] = added_later(
        "support",
        description="what an adaptive attacker does to its gradients: keep the entries that the observation "
        "has; threshold: zero the observed share of each tensor's smallest",
    )


class QuantizationConfig(Config):
    """Rounding to 2^bits - 1 evenly spaced levels."""

    bits: int = Field(4, ge=2, le=16, description="bits per entry")
    rounding: Literal["nearest", "stochastic"] = Field(
        "nearest", description="stochastic: up or down at random, unbiased"
    )
    scope: Scope = Field(
        "per_tensor", description="whose largest entry sets the spacing: each tensor's, or all"
    )


class FixedStepConfig(Config):
    """Rounding to whole multiples of a fixed step."""

    step: float = Field(
        1 / 15,
        ge=0,
        description="distance of the levels, in units of the gradient (of a delta: times lr x local steps)",
    )


class SignConfig(Config):
    """The sign of every entry."""

    magnitude: Literal["one", "mean"] = Field(
        "one",
        description="of every sign: one unit of the gradient (of a delta: times lr x local steps), or the "
        "mean magnitude of its tensor",
    )


def _gaussian_budget(config: GaussianConfig) -> NoiseBudget:
    return _noise_budget("sigma", "standard deviation of a gradient entry", config.scale)


def _laplace_budget(config: LaplaceConfig) -> NoiseBudget:
    return _noise_budget("b", "Laplace scale of a gradient entry (deviation / sqrt 2)", config.scale)


def _noise_budget(field: str, absolute_unit: str, scale: NoiseScale) -> NoiseBudget:
    relative = scale == "relative"
    return NoiseBudget(
        field=field,
        unit="share of the update's root mean square" if relative else absolute_unit,
        domain="update" if relative else "gradient",
        stronger="higher",
        off=0.0,
        grid=(0.01, 0.1, 1.0, 10.0) if relative else (1e-4, 1e-3, 1e-2, 1e-1),
    )


def _clipping_budget(config: ClippingConfig) -> NoiseBudget:
    return NoiseBudget(
        field="bound",
        unit="L2 norm of the gradient" if config.scope == "global" else "L2 norm of each gradient tensor",
        domain="gradient",
        stronger="lower",
        off=None,  # a bound above the norm changes no bit, but no bound is above every norm
        grid=(10.0, 4.0, 1.0, 0.1),
    )


def _pruning_budget(config: PruningConfig) -> NoiseBudget:
    return NoiseBudget(
        field="ratio",
        unit="share of entries zeroed",
        domain="update",
        stronger="higher",
        off=0.0 if config.variant == "standard" else None,  # the variant drops signs even at 0
        grid=(0.2, 0.5, 0.8, 0.9, 0.99),
    )


def _quantization_budget(config: QuantizationConfig) -> NoiseBudget:
    return NoiseBudget(
        field="bits",
        unit="bits per entry",
        domain="update",
        stronger="lower",
        off=None,  # even 16 bits round
        grid=(8, 6, 4, 3, 2),
    )


def _fixed_step_budget(config: FixedStepConfig) -> NoiseBudget:
    return NoiseBudget(
        field="step",
        unit="distance of levels of a gradient entry",
        domain="gradient",
        stronger="higher",
        off=0.0,
        grid=(1e-3, 1e-2, 1 / 15, 0.2, 1.0),
    )


def _sign_budget(config: SignConfig) -> NoiseBudget:
    return NoiseBudget(field="", unit="", domain="update", stronger="higher", off=None, grid=(0.0,))


def _rounds_one_update(config: Config, setting: Setting) -> str | None:
    if setting.attacker == "adaptive" and setting.observes == "aggregate":
        return "its mirror rounds one client's update, not a mean of several (attacker: static)"
    return None


def _quantization_compatible(config: QuantizationConfig, setting: Setting) -> str | None:
    return None if config.rounding == "stochastic" else _rounds_one_update(config, setting)


GAUSSIAN = DefenseCard(
    name="gaussian",
    version=1,
    summary="Independent Gaussian noise on every entry of the update.",
    config=GaussianConfig,
    implementation="defenses.gaussian:Gaussian",
    reference=Reference("Zhu, Liu and Han 2019, Deep Leakage from Gradients, arXiv 1906.08935, section 5.1"),
    noise_budget=_gaussian_budget,
    hooks=frozenset({"protect"}),
    mirrored=True,
)

LAPLACE = DefenseCard(
    name="laplace",
    version=1,
    summary="Independent Laplace noise on every entry of the update.",
    config=LaplaceConfig,
    implementation="defenses.laplace:Laplace",
    reference=Reference("Zhu, Liu and Han 2019, Deep Leakage from Gradients, arXiv 1906.08935, section 5.1"),
    noise_budget=_laplace_budget,
    hooks=frozenset({"protect"}),
    mirrored=True,
)

CLIPPING = DefenseCard(
    name="clipping",
    version=1,
    summary="Scale the update down to a largest L2 norm, over all tensors or of each.",
    config=ClippingConfig,
    implementation="defenses.clipping:Clipping",
    reference=Reference(
        "Abadi et al. 2016, Deep Learning with Differential Privacy, arXiv 1607.00133, section 3.1"
    ),
    noise_budget=_clipping_budget,
    hooks=frozenset({"protect"}),
    mirrored=True,
)

PRUNING = DefenseCard(
    name="pruning",
    version=1,
    summary="Zero the smallest entries, of each tensor or of the whole update.",
    config=PruningConfig,
    implementation="defenses.pruning:Pruning",
    reference=Reference("Zhu, Liu and Han 2019, Deep Leakage from Gradients, arXiv 1906.08935, section 5.2"),
    noise_budget=_pruning_budget,
    hooks=frozenset({"protect"}),
    mirrored=True,
)

QUANTIZATION = DefenseCard(
    name="quantization",
    version=1,
    summary="Round every entry to one of 2^bits - 1 levels, spaced by the largest entry.",
    config=QuantizationConfig,
    implementation="defenses.quantization:Quantization",
    reference=Reference(
        "Alistarh et al. 2017, QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding, "
        "arXiv 1610.02132, section 3.1 (stochastic rounding; there relative to the norm)"
    ),
    noise_budget=_quantization_budget,
    hooks=frozenset({"protect"}),
    mirrored=True,
    compatible=_quantization_compatible,
)

FIXED_STEP = DefenseCard(
    name="fixed_step",
    version=1,
    summary="Round every entry to a whole multiple of a fixed step.",
    config=FixedStepConfig,
    implementation="defenses.fixed_step:FixedStep",
    reference=Reference("justinliu23/gradient-inversion-defense-fl, the notebook's 4-bit quantization"),
    noise_budget=_fixed_step_budget,
    hooks=frozenset({"protect"}),
    mirrored=True,
    compatible=_rounds_one_update,
)

SIGN = DefenseCard(
    name="sign",
    version=1,
    summary="Send only the sign of every entry.",
    config=SignConfig,
    implementation="defenses.sign:Sign",
    reference=Reference(
        "Bernstein et al. 2018, signSGD: Compressed Optimisation for Non-Convex Problems, arXiv 1802.04434, "
        "Algorithm 1; magnitude: mean from Karimireddy et al. 2019, arXiv 1901.09847, Algorithm 1"
    ),
    noise_budget=_sign_budget,
    hooks=frozenset({"protect"}),
    mirrored=True,
    compatible=_rounds_one_update,
)

UPDATE_CARDS: tuple[DefenseCard[Any], ...] = (
    GAUSSIAN,
    LAPLACE,
    CLIPPING,
    PRUNING,
    QUANTIZATION,
    FIXED_STEP,
    SIGN,
)
