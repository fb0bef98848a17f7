"""Configuration and card of ShadowDef, read without torch."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field

from fl.cards import DefenseCard, NoiseBudget, Reference, Resources, Setting, StageRequest
from fl.generators.config import GeneratorConfig, generator_stage, generator_unfit
from fl.specs import Config, TrialSpec

GENERATOR = "shadow"
"""Under which name a client finds the public generator that its shadow starts from."""

Placement = Literal["map", "gaussian", "permuted"]
Defect = Literal[
    "random_generator",
    "random_latents",
    "accumulated_gradients",
    "scrambled_map",
    "flat_cam",
    "class_one_cam",
    "train_mode_cam",
    "mismatched_modes",
    "recovered_statistics",
]
DEFECTS: tuple[Defect, ...] = get_args(Defect)
"""What the released code does otherwise than it says; each is an option of `ShadowDefConfig`."""


def _switch(description: str) -> Any:
    return Field(None, description=f"as released: {description} (unset: as `variant` says)")


class ShadowGeneratorConfig(GeneratorConfig):
    """The public generator that every client's shadow starts from."""

    mapping_layers: int = Field(
        2, ge=0, le=8, description="layers between latent vector and synthesis, which stay as they are"
    )


class ShadowDefConfig(Config):
    """Noise on the training images where a generator that imitates an attacker succeeds.

    Defaults are the released code's for images of 224 pixels and 100 rounds.
    """

    noise_rescale: float = Field(
        0.19, ge=0, description="largest noise of an image in round 0, as a share of its largest input value"
    )
    noise_increase: float = Field(
        1.0, ge=0, description="the noise of round r of R is exp(noise_increase r / R) times that of round 0"
    )
    placement: Placement = Field(
        "map",
        description="where the noise goes, its energy the same for every image: as computed; white Gaussian; "
        "as computed, with pixels permuted",
    )
    variant: Literal["fixed", "as_released"] = Field(
        "fixed", description="as_released: every defect of the released code that is not set by itself"
    )

    generator: ShadowGeneratorConfig = Field(default_factory=ShadowGeneratorConfig)
    latent_steps: int = Field(500, ge=1, description="steps that fit an image's latent vector, once")
    latent_lr: float = Field(1e-3, gt=0, description="their AdamW step size; halved at 3, 5 and 7 eighths")
    latent_weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay")
    latent_warmup: int = Field(50, ge=0, description="steps before a fit may end early")
    latent_patience: int = Field(5, ge=1, description="an error that rises so often in a row ends a fit")

    shadow_final: int = Field(20, ge=0, description="rounds in which the shadow is tuned; then maps are kept")
    shadow_steps: int = Field(5, ge=1, description="Adam steps on the synthesis network per batch")
    shadow_lr: float | None = Field(
        None, gt=0, description="their size; unset: 1e-4 for batches of 1, else 2.5e-4 per image of a batch"
    )
    gradient_weight: float = Field(1e-2, ge=0, description="weight of the distance of the gradients")
    batch_norm_weight: float = Field(1e-2, ge=0, description="weight of the distance of batch statistics")
    tv_weight: float = Field(1e-5, ge=0, description="weight of total variation")
    l2_weight: float = Field(1e2, ge=0, description="weight of the images' norm over the squared pixel count")
    mse_weight: float = Field(1.0, ge=0, description="weight of the squared distance to the true images")
    ema: float = Field(0.5, ge=0, le=1, description="share of the tuned weights that a batch leaves behind")

    temperature: float = Field(20.0, gt=0, description="divisor before every softmax")
    bins: int = Field(256, ge=2, description="bins of the histogram equalisation")
    noise_momentum: float = Field(0.1, ge=0, le=1, description="share of the old map in the kept one")

    cam_class: Literal["true", "predicted"] = Field("true", description="whose logit Grad-CAM++ explains")
    cam_share: float = Field(0.3, gt=0, le=1, description="share of pixels that count as salient")
    attenuation_min: float = Field(0.1, ge=0, le=1, description="least attenuation of salient pixels")
    attenuation_max: float = Field(0.5, ge=0, le=1, description="largest one; round r of R has r / R between")

    random_generator: bool | None = _switch("the shadow starts from random weights")
    random_latents: bool | None = _switch("latent vectors are drawn and never fitted")
    accumulated_gradients: bool | None = _switch("gradients of the latent fit are never cleared")
    scrambled_map: bool | None = _switch("the equalised map's memory is read in the wrong order")
    flat_cam: bool | None = _switch("a nearly uniform map is subtracted with the noise's sign")
    class_one_cam: bool | None = _switch("Grad-CAM++ explains class 1 for every image")
    train_mode_cam: bool | None = _switch("in round 0 Grad-CAM++ uses each image's own batch statistics")
    mismatched_modes: bool | None = _switch(
        "the shadow's gradient is the received model's in evaluation mode, the client's that of its own"
    )
    recovered_statistics: bool | None = _switch(
        "batch statistics are worked out from running ones, exact in the round's first step only"
    )

    def has(self, defect: Defect) -> bool:
        """Return whether a defect of the released code is in force."""
        switch: bool | None = getattr(self, defect)
        return self.variant == "as_released" if switch is None else switch

    @property
    def off(self) -> bool:
        """Whether nothing is to be done."""
        return self.noise_rescale == 0

    def step_size(self, batch_size: int) -> float:
        """Return the size of the shadow's steps for a client's nominal batch size."""
        if self.shadow_lr is not None:
            return self.shadow_lr
        return 1e-4 if batch_size == 1 else 2.5e-4 * batch_size


def _budget(config: ShadowDefConfig) -> NoiseBudget:
    return NoiseBudget(
        field="noise_rescale",
        unit="largest noise in round 0 over the image's largest normalised value",
        domain="image",
        stronger="higher",
        off=0.0,
        grid=(0.05, 0.19, 0.5, 1.0),
    )


def _compatible(config: ShadowDefConfig, setting: Setting) -> str | None:
    if config.off:
        return None
    if not setting.model.convolution:
        return "Grad-CAM++ needs a model with a spatial layer"
    if config.has("train_mode_cam") and setting.model.min_train_batch > 1:
        return "train_mode_cam: this model has no batch statistics of a single image"
    return generator_unfit(config.generator, setting)


def _stages(config: ShadowDefConfig, spec: TrialSpec) -> list[StageRequest]:
    return [] if config.off else generator_stage(config.generator, spec, name=GENERATOR)


SHADOWDEF = DefenseCard(
    name="shadowdef",
    version=1,
    summary="Noise on the training images where a client's own attacker reconstructs them well.",
    config=ShadowDefConfig,
    implementation="defenses.shadowdef.defense:ShadowDef",
    reference=Reference(
        "Jiang, Ma, Yang 2025, Shadow Defense against Gradient Inversion Attack in Federated Learning, "
        "Medical Image Analysis 103673, arXiv 2506.15711"
    ),
    noise_budget=_budget,
    hooks=frozenset({"perturb_batch"}),
    mirrored=False,
    unperturbs=True,
    compatible=_compatible,
    stages=_stages,
    resources=Resources(gpus=0.25, memory_mib=2048),
)

SHADOWDEF_CARDS: tuple[DefenseCard[Any], ...] = (SHADOWDEF,)
