"""What attacks on a global model have in common in their configurations and cards, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from fl.cards import Setting, StageRequest
from fl.generators.config import GeneratorConfig, generator_stage, generator_unfit
from fl.specs import Config, TrialSpec

PRIOR = "prior"
"""Under which a task's artifacts hold the generator of public images."""

WEIGHT = "of the term in the sum that is minimised; may be negative; 0: without"
SPLIT = "halves: of all images, label by label; per_label: of each label's images, then the mean over labels"
"""What is said of options whose default is an attack's own."""


class DiversityConfig(Config):
    """How much one half of the generated images depends on the other, as a term of what is minimised."""

    weight: float = Field(0.05, description=WEIGHT)
    measure: Literal["hsic", "coco"] = Field(
        "hsic", description="normalised Hilbert-Schmidt independence criterion, or constrained covariance"
    )
    sigma: float = Field(
        5.0,
        ge=0,
        description="bandwidth of Gaussian kernels, whose distance is the root mean square over entries; 0: "
        "the median rule",
    )
    kernel: Literal["gaussian", "linear", "imq"] = Field(
        "gaussian", description="of the first half; that of the second is always gaussian"
    )
    split: Literal["halves", "per_label"] = Field("halves", description=SPLIT)
    features: Literal["pixels", "critic"] = Field(
        "pixels",
        description="what images are compared by: pixels, or what the critic's last layer takes",
    )
    epsilon: float = Field(1e-5, gt=0, description="hsic: ridge per image, as released")


PRIOR_DEFAULTS: Mapping[str, object] = {"kind": "wgan_gp", "critic": True}
"""Of the prior of attacks on a global model, where they differ from a generator's own."""


def critic_prior() -> GeneratorConfig:
    """Return the prior that attacks on a global model default to: WGAN-GP, its critic kept."""
    return GeneratorConfig.model_validate(PRIOR_DEFAULTS)


def _as_a_critic_prior(given: object) -> object:
    """Fill in what a partly given prior leaves unsaid; a checkpoint is what it is."""
    if isinstance(given, Mapping) and given.get("checkpoint") is None:
        return {**PRIOR_DEFAULTS, **given}
    return given


CriticPrior = Annotated[GeneratorConfig, BeforeValidator(_as_a_critic_prior)]
"""A prior that is trained as WGAN-GP and keeps its critic, unless it says otherwise."""


def require_critic(prior: GeneratorConfig, use: str) -> None:
    """Refuse a prior without its critic.

    Args:
        prior: The generator.
        use: What asks for the critic, as the refusal says it.

    Raises:
        ValueError: If it is not kept, or there is none, the generator being a checkpoint's.
    """
    if not prior.critic:
        raise ValueError(f"expected prior.critic: true ({use}, and a checkpoint has none), got false")


def one_class_per_image(setting: Setting) -> str | None:
    """Return why there are no single labels to recover images of."""
    if setting.federation is None:
        return "a recorded observation does not say which classes to recover"
    if setting.data.task.kind == "multiclass":
        return None
    return f"it recovers images of a class, and this data set's task is {setting.data.task.kind}"


def prior_unusable(prior: GeneratorConfig, setting: Setting) -> str | None:
    """Return why an attacker cannot have such a generator; it draws without labels."""
    if prior.checkpoint is None and not setting.threat_model.knowledge.public_data:
        return "its generator is trained on public images, which needs knowledge.public_data"
    return generator_unfit(prior, setting)


def prior_stages(prior: GeneratorConfig, spec: TrialSpec) -> list[StageRequest]:
    """Ask for the generator, which the attack finds as `PRIOR`."""
    return generator_stage(prior, spec, name=PRIOR)
