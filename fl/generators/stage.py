"""The stage that makes a generator: trained on public images, or read from a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fl.errors import DataUnavailableError
from fl.generators import files, quality
from fl.generators.architecture import Generator
from fl.generators.config import GeneratorConfig
from fl.generators.layout import Layout
from fl.generators.training import Training
from fl.seeds import Streams
from fl.specs import JSON
from fl.types import Artifact, StageContext

if TYPE_CHECKING:
    from fl.generators.architecture import Generator

HELD_OUT = 0.1
"""Share of the public images that quality is measured on, and no generator is trained on."""

SAMPLES = 64
"""Images kept in the artifact for people to look at."""

KEEP_EVERY = 200
"""Steps between two states that an interrupted training can go on from."""

_CHUNK = 64
_WEIGHTS = "weights."


def train(config: Mapping[str, JSON], inputs: Mapping[str, Artifact], context: StageContext) -> Artifact:
    """Make the generator that a `generator_stage` asks for.

    Returns:
        Tensors: its weights under `weights.`, and `samples`, `64 x C x H x W` uint8. Data: `layout`, and
        where there are public images `quality` (`fl.generators.quality.distances`).

    Raises:
        DataUnavailableError: If it is to be trained and there are no public images, or a checkpoint cannot be
            had.
    """
    held: Any = config
    channels, size = held["image"]
    if "checkpoint" in context.files:
        read = files.read(context.files["checkpoint"])
        generator = files.build(read.layout.showing(size), read.state_dict())
    else:
        generator = _trained(GeneratorConfig(**held["generator"]), channels, size, context)
    return _artifact(generator.to(context.device), context)


def load(artifact: Artifact, device: torch.device | str = "cpu") -> Generator:
    """Return the generator of a stage's artifact, in eval mode, without gradients."""
    layout: Any = artifact.data["layout"]
    weights = {
        name.removeprefix(_WEIGHTS): tensor
        for name, tensor in artifact.tensors.items()
        if name.startswith(_WEIGHTS)
    }
    return files.build(Layout(**layout), weights).to(device)


def split(images: Tensor, streams: Streams) -> tuple[Tensor, Tensor]:
    """Return the images to train on and the held-out ones, drawn from the seed's stream."""
    order = torch.randperm(len(images), generator=streams.torch("generator_held_out"))
    held_out = max(1, math.floor(HELD_OUT * len(images)))
    return images[order[held_out:]], images[order[:held_out]]


def _trained(config: GeneratorConfig, channels: int, size: int, context: StageContext) -> Generator:
    if context.public is None:
        raise DataUnavailableError(
            "a generator is trained on public images, and there are none; name a data set with public:"
        )
    layout = Layout("upsampling", channels, size, config.latent, config.width, config.mapping_layers)
    images, _ = split(context.public.images, context.streams)
    training = Training(config, layout, images.to(context.device), context.streams)
    kept = context.kept()
    if kept is not None:
        training.resume(kept)
    while training.done < config.steps:
        training.step()
        if training.done % KEEP_EVERY == 0 and training.done < config.steps:
            context.keep(training.state())
        context.progress(training.done / config.steps, f"{config.kind} step {training.done}")
    return files.frozen(training.average)


def _artifact(generator: Generator, context: StageContext) -> Artifact:
    samples = _draw(generator, SAMPLES, context.streams.torch("generator_samples"))
    data: dict[str, Any] = {"layout": generator.layout.document()}
    if context.public is not None:
        seen, held_out = split(context.public.images, context.streams)
        stream = context.streams.torch("generator_quality")
        drawn = _draw(generator, quality.SETS * len(held_out), stream)
        data["quality"] = quality.distances(drawn, seen, held_out, stream)
    weights = {f"{_WEIGHTS}{name}": tensor.cpu() for name, tensor in generator.state_dict().items()}
    return Artifact({**weights, "samples": (samples * 255).round().to(torch.uint8)}, data)


def _draw(generator: Generator, number: int, stream: torch.Generator) -> Tensor:
    """Return `number` samples on the CPU."""
    latents = torch.randn(number, generator.latent, generator=stream)
    device = next(generator.parameters()).device
    with torch.no_grad():
        chunks = [generator(chunk.to(device)).cpu() for chunk in torch.split(latents, _CHUNK)]
    return torch.cat(chunks)
