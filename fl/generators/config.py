"""What a generator is configured by, and the stage that makes one; read without torch or numpy."""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any, Literal

from pydantic import Field, model_validator

from fl.cards import Resources, Setting, StageRequest
from fl.data import DATASETS
from fl.generators.costs import training_work
from fl.generators.layout import FACES, GGL_SIZE, GMI_SIZES, Layout, checkpoint_digest, checkpoint_layout
from fl.specs import Config, Plugin, TrialSpec, added_later

STAGE_KIND = "prior"
STAGE_VERSION = 1
"""Bumped when trained generators change."""

MIN_SIZE, MAX_SIZE = 16, 128
"""Sides, in pixels, of images that a generator can be trained for."""

MIN_IMAGES = 16
"""Public images below which no generator is trained."""

NO_LABELS = "the generator draws by class, and here it is used without labels"

_KEPT = 4096
_requests: dict[tuple[str, str, int, str], StageRequest] = {}


class GeneratorConfig(Config):
    """A generator of images: trained on the public images, or weights that are there already."""

    kind: Literal["dcgan", "wgan_gp"] = Field(
        "dcgan", description="how it is trained: non-saturating loss, or Wasserstein with gradient penalty"
    )
    latent: int = Field(64, ge=2, description="entries of a latent vector")
    width: int = Field(
        16, ge=2, description="feature maps of the last block; the first has up to 4 times as many"
    )
    mapping_layers: int = Field(
        0, ge=0, le=8, description="fully connected layers between latent vector and synthesis; 0: none"
    )
    steps: int = Field(1500, ge=1, description="generator steps (wgan_gp: 5 critic steps each)")
    batch_size: int = Field(32, ge=2)
    lr: float | None = Field(None, gt=0, description="Adam's step; dcgan: 2e-4, wgan_gp: 1e-4, as published")
    average: float = Field(
        0.995, ge=0, lt=1, description="decay of the running mean of weights that is kept; 0: the last ones"
    )
    checkpoint: str | None = Field(
        None,
        min_length=1,
        description=f"a .safetensors file that fl.generators.files.write wrote, or {FACES}: the packaged "
        "DCGAN of 64x64 RGB faces, or with architecture: another project's file; nothing is trained, and no "
        "other option applies",
    )
    architecture: Literal["upsampling", "styled", "ggl", "gmi", "biggan_deep_256"] = added_later(
        "upsampling",
        description="upsampling: ours; styled: ours with a style vector per layer (give it mapping_layers); "
        "ggl: 32x32, by transposed convolutions with batch norm, as GGL's authors train it at latent: 128, "
        "width: 128; gmi: 16, 32 or 64 pixels, as GMI's released code trains it at latent: 100, width: 64; "
        "biggan_deep_256: BigGAN-deep, from a checkpoint only. "
        "With checkpoint: whose layout and names the file has",
    )
    conditional: bool = added_later(
        False, description="draw by class: generator and critic learn the public images' labels as well"
    )
    critic: bool = added_later(
        False, description="keep the critic's last weights too, for whoever asks it how real an image looks"
    )

    @model_validator(mode="after")
    def _checkpoint_comes_alone(self) -> GeneratorConfig:
        if self.checkpoint is not None:
            fields = type(self).model_fields
            changed = [name for name in fields if getattr(self, name) != fields[name].default]
            superfluous = [name for name in changed if name not in ("checkpoint", "architecture")]
            if superfluous:
                raise ValueError(f"a checkpoint brings its own architecture; leave out {superfluous[0]}")
        elif self.architecture == "biggan_deep_256":
            raise ValueError("architecture: biggan_deep_256 is not trained here; name a checkpoint")
        return self

    @property
    def step_size(self) -> float:
        """Adam's step (Radford et al. 2016, section 3; Gulrajani et al. 2017, algorithm 1)."""
        return self.lr if self.lr is not None else {"dcgan": 2e-4, "wgan_gp": 1e-4}[self.kind]

    def resolved(self) -> dict[str, Any]:
        """Return the identity: of a checkpoint, a digest of its content and nothing else.

        Raises:
            DataUnavailableError: If the checkpoint's file cannot be read.
        """
        if self.checkpoint is None:
            return super().resolved()
        identity = {"checkpoint": f"sha256:{checkpoint_digest(self.checkpoint)}"}
        return identity | ({} if self.architecture == "upsampling" else {"architecture": self.architecture})

    @property
    def released_layout(self) -> Layout:
        """The layout of the checkpoint, as far as it can be told without torch.

        Raises:
            DataUnavailableError: If the file cannot be read.
        """
        assert self.checkpoint is not None
        return checkpoint_layout(self.checkpoint, self.architecture)

    def trained_layout(self, channels: int, size: int, *, classes: int = 0) -> Layout:
        """Return the layout that is trained for images of `channels` x `size` x `size`."""
        shape = (channels, size, self.latent, self.width, self.mapping_layers)
        return Layout(self.architecture, *shape, classes=classes)


def generator_stage(config: GeneratorConfig, spec: TrialSpec, *, name: str) -> list[StageRequest]:
    """Return the stage that makes a trial's generator; none where a trial has no data set at all.

    Its key holds the generator's configuration, the public data and the seed; not the model, the federation,
    the defense or the attack, which therefore share it. Of a checkpoint it holds the content and the images'
    shape.

    Args:
        config: The generator.
        spec: The trial.
        name: Under which the plug-in finds the artifact (`fl.generators.stage.load` takes it).

    Raises:
        DataUnavailableError: If the public data or the checkpoint are not on this machine.
    """
    source = spec.public or spec.data
    if source is None:
        return []
    address = (config.canonical, source.canonical, spec.seed, name)
    if address not in _requests:
        while len(_requests) >= _KEPT:
            del _requests[next(iter(_requests))]
        _requests[address] = _request(config, source, spec.seed, name)
    return [_requests[address]]


def generator_unfit(config: GeneratorConfig, setting: Setting, *, labels: bool = False) -> str | None:
    """Return why no such generator can be had for a setting's images, or None.

    Whether an attacker is granted the public images is not asked here.

    Args:
        config: The generator.
        setting: What it is to be used in.
        labels: Whether whoever uses it has the images' labels, and may draw by class.

    Raises:
        DataUnavailableError: If the checkpoint cannot be read.
    """
    if config.checkpoint is not None:
        return _unfit_layout(config.released_layout, setting, labels=labels)
    data, public = setting.data, setting.public or setting.data
    sizes, in_words = _sizes(config)
    if data.size not in sizes:
        return f"generators are trained for {in_words} pixels a side, these have {data.size}"
    if setting.public_images < MIN_IMAGES:
        return (
            f"a generator is trained on at least {MIN_IMAGES} public images, there are "
            f"{setting.public_images} (public: names another data set)"
        )
    if config.conditional and not labels:
        return NO_LABELS
    if config.conditional and public.task != data.task:
        return "a conditional generator learns the task's labels, and the public images have another task's"
    return None


def _sizes(config: GeneratorConfig) -> tuple[Container[int], str]:
    """Return the sides that a generator is trained for, and how they are said."""
    if config.architecture == "ggl":
        return (GGL_SIZE,), str(GGL_SIZE)
    if config.architecture == "gmi":
        return GMI_SIZES, ", ".join(map(str, GMI_SIZES[:-1])) + f" or {GMI_SIZES[-1]}"
    return range(MIN_SIZE, MAX_SIZE + 1), f"{MIN_SIZE} to {MAX_SIZE}"


def _unfit_layout(layout: Layout, setting: Setting, *, labels: bool) -> str | None:
    if reason := layout.unfit(setting.data.channels, setting.data.size):
        return reason
    if layout.classes and not labels:
        return NO_LABELS
    return layout.unfit_for(setting.data.task)


def _request(config: GeneratorConfig, source: Plugin, seed: int, name: str) -> StageRequest:
    info = DATASETS.get(source.name).describe(source.config)
    needs: dict[str, Any] = {
        "generator": json.loads(config.canonical),
        "image": [info.channels, info.size],
    }
    if config.checkpoint is None:
        needs |= {"public": json.loads(source.canonical), "fingerprint": info.fingerprint, "seed": seed}
        if config.conditional:
            needs["classes"] = info.task.outputs
    work = None
    if config.checkpoint is None:
        layout = config.trained_layout(info.channels, info.size, classes=needs.get("classes", 0))
        work = training_work(config, layout)
    return StageRequest(
        name=name,
        kind=STAGE_KIND,
        implementation="fl.generators.stage:train",
        version=STAGE_VERSION,
        config=needs,
        files={} if config.checkpoint is None else {"checkpoint": config.checkpoint},
        resources=Resources(gpus=0.5, memory_mib=2048),
        work=work,
    )
