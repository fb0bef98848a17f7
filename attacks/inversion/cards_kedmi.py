"""KED-MI's configuration and card, read without torch."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from pydantic import Field, model_validator

from attacks.inversion.config import DiversityConfig, one_class_per_image, prior_unusable
from attacks.inversion.costs import kedmi_work
from attacks.inversion.gan_request import gan_stage
from fl.cards import AttackCard, Reference, Resources, Setting, StageRequest
from fl.generators.config import GeneratorConfig
from fl.specs import Config, TrialSpec

GAN_VERSION = 1
"""Bumped when trained GANs change."""


class KedmiGanConfig(Config):
    """A GAN whose discriminator learns the attacked model's soft labels of the public images."""

    steps: int = Field(
        3000, ge=1, description="discriminator steps; as published, 100 passes over the public images"
    )
    critic_steps: int = Field(5, ge=1, description="discriminator steps per generator step")
    batch_size: int = Field(64, ge=2)
    lr: float = Field(2e-4, gt=0, description="Adam's step, with decays 0.5 and 0.999")
    architecture: Literal["upsampling", "gmi"] = Field(
        "upsampling", description="of the generator, as of a prior; gmi: as released, with width: 64"
    )
    latent: int = Field(100, ge=2, description="entries of a latent vector")
    width: int = Field(
        16,
        ge=2,
        description="feature maps of the generator's last block and of the discriminator's first; 64 as "
        "published",
    )
    entropy: float = Field(
        1e-4, ge=0, description="weight of the generated images' entropies under the discriminator, their sum"
    )
    kernels: int = Field(64, ge=1, description="features of minibatch discrimination")
    kernel_dimensions: int = Field(50, ge=1, description="entries that each of them compares")
    kernel_deviation: float = Field(
        1.0, gt=0, description="standard deviation of their first weights; 0.02 suits few steps"
    )


class KedmiConfig(Config):
    """Knowledge-enriched distributional inversion: a Gaussian of latent vectors for each label."""

    gan: KedmiGanConfig = Field(default_factory=KedmiGanConfig, description="made with the attacked model")
    samples: int = Field(10, ge=1, description="images per label, drawn when all is done")
    iterations: int = Field(5000, ge=1, description="as FedInverse's code; 2,400 in KED-MI's own")
    lr: float = Field(0.02, gt=0, description="Adam's step")
    identity_weight: float = Field(
        100.0, ge=0, description="weight of the attacked model's cross-entropy; realism has 1"
    )
    first_logvar: float = Field(
        0.0, description="log variance that Gaussians begin with, as FedInverse's code; 1 in KED-MI's own"
    )
    bounds: Literal["none", "clamp", "tanh"] = Field(
        "none",
        description="what latent vectors go through before the generator: nothing, a clamp to [-1, 1], or "
        "tanh; none is what the released code amounts to",
    )
    diversity: DiversityConfig = Field(
        default_factory=DiversityConfig,
        description="FedInverse's term, of one image per label; critic: the discriminator's last maps",
    )

    @model_validator(mode="after")
    def _diversity_is_possible(self) -> KedmiConfig:
        if self.diversity.split == "per_label":
            raise ValueError(
                "expected diversity.split: halves (an iteration has one image of each label), got per_label"
            )
        return self


def _compatible(config: KedmiConfig, setting: Setting) -> str | None:
    return one_class_per_image(setting) or prior_unusable(
        GeneratorConfig(architecture=config.gan.architecture), setting
    )


def _stages(config: KedmiConfig, spec: TrialSpec) -> list[StageRequest]:
    implementation = "attacks.inversion.kedmi_gan:train"
    work = partial(kedmi_work, config.gan)
    return gan_stage({"gan": config.gan}, spec, implementation=implementation, version=GAN_VERSION, work=work)


def _evaluations(config: KedmiConfig) -> int:
    return config.iterations


KEDMI = AttackCard(
    name="kedmi",
    version=1,
    summary="Find a Gaussian of latent vectors for each label, of a GAN that knows the attacked model.",
    config=KedmiConfig,
    implementation="attacks.inversion.kedmi:Kedmi",
    reference=Reference(
        "Chen, Kahla, Jia and Qi 2021, Knowledge-Enriched Distributional Model Inversion Attacks, arXiv "
        "2010.04092"
    ),
    family="model_inversion",
    observes=frozenset({"global_model"}),
    evaluations=_evaluations,
    compatible=_compatible,
    stages=_stages,
    resources=Resources(gpus=0.25),
)

CARDS: tuple[AttackCard[Any], ...] = (KEDMI,)
