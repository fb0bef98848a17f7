"""PLG-MI's configuration and card, read without torch."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import Field

from attacks.inversion.config import WEIGHT, DiversityConfig, one_class_per_image, prior_unusable
from attacks.inversion.costs import plgmi_work
from attacks.inversion.gan_request import gan_stage
from fl.cards import AttackCard, Reference, Resources, Setting, StageRequest
from fl.generators.config import GeneratorConfig
from fl.specs import Config, TrialSpec

GAN_VERSION = 1
"""Bumped when trained GANs change."""


class ViewsConfig(Config):
    """Random views of an image, under which a label has to hold; as published for faces by default."""

    crop: float = Field(
        0.8, gt=0, le=1, description="least share of the area that a square crop keeps; 1: no crop"
    )
    flip: bool = Field(True, description="mirror every other view; false for digits and letters")
    rotation: float = Field(5.0, ge=0, le=180, description="every other view is turned, so far at most")
    brightness: float = Field(0.2, ge=0, le=1, description="largest relative change")
    contrast: float = Field(0.2, ge=0, le=1, description="largest relative change")


class PlgmiGanConfig(Config):
    """A GAN that draws by class, its labels being the attacked model's guesses about the public images."""

    top_n: int = Field(
        30, ge=1, description="public images per class: those that the attacked model is surest of"
    )
    alpha: float = Field(0.2, ge=0, description="weight of the margin loss in the generator's")
    steps: int = Field(1500, ge=1, description="generator steps; 30,000 as published")
    critic_steps: int = Field(5, ge=1, description="discriminator steps per generator step")
    batch_size: int = Field(64, ge=2)
    lr: float = Field(2e-4, gt=0, description="Adam's step, with decays 0 and 0.9")
    latent: int = Field(128, ge=2, description="entries of a latent vector")
    width: int = Field(
        16,
        ge=2,
        description="feature maps of the generator's last block and of the discriminator's first; 64 as "
        "published",
    )


class PlgmiDiversityConfig(DiversityConfig):
    """FedInverse's term, off by default."""

    weight: float = Field(0.0, description=WEIGHT)


class PlgmiConfig(Config):
    """Pseudo-label-guided inversion: latent vectors of a GAN that draws by class, by a margin loss."""

    gan: PlgmiGanConfig = Field(default_factory=PlgmiGanConfig, description="made with the attacked model")
    views: ViewsConfig = Field(
        default_factory=ViewsConfig, description="random views, in the GAN's training and in the search"
    )
    samples: int = Field(10, ge=1, description="images per label; all are handed over, none is chosen")
    iterations: int = Field(600, ge=1)
    lr: float = Field(0.1, gt=0, description="Adam's step")
    views_each: int = Field(2, ge=1, description="views of every image whose losses are averaged")
    diversity: PlgmiDiversityConfig = Field(
        default_factory=PlgmiDiversityConfig,
        description="FedInverse's term, off by default; critic: the discriminator's features",
    )


def _compatible(config: PlgmiConfig, setting: Setting) -> str | None:
    return one_class_per_image(setting) or prior_unusable(GeneratorConfig(), setting)


def _stages(config: PlgmiConfig, spec: TrialSpec) -> list[StageRequest]:
    needs: dict[str, Config] = {"gan": config.gan, "views": config.views}
    implementation = "attacks.inversion.plgmi_gan:train"
    work = partial(plgmi_work, config.gan)
    return gan_stage(needs, spec, implementation=implementation, version=GAN_VERSION, work=work)


def _evaluations(config: PlgmiConfig) -> int:
    return config.iterations * config.views_each


PLGMI = AttackCard(
    name="plgmi",
    version=1,
    summary="Search a GAN that draws by class, trained on the attacked model's guesses, by a margin loss.",
    config=PlgmiConfig,
    implementation="attacks.inversion.plgmi:Plgmi",
    reference=Reference(
        "Yuan, Chen, Zhang, Zhang, Yu and Zhang 2023, Pseudo Label-Guided Model Inversion Attack via "
        "Conditional Generative Adversarial Network, arXiv 2302.09814"
    ),
    family="model_inversion",
    observes=frozenset({"global_model"}),
    evaluations=_evaluations,
    compatible=_compatible,
    stages=_stages,
    resources=Resources(gpus=0.25),
)

CARDS: tuple[AttackCard[Any], ...] = (PLGMI,)
