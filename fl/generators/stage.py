"""The stage that makes a generator: trained on public images, or read from a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fl.data.base import UNLABELLED
from fl.encoding import under
from fl.errors import BenchError, DataUnavailableError, NotApplicableError
from fl.generators import files, quality, resumable
from fl.generators.architecture import Critic
from fl.generators.config import MAX_SIZE, GeneratorConfig
from fl.generators.layout import Layout
from fl.generators.training import Training
from fl.seeds import Streams
from fl.specs import JSON
from fl.stage_context import StageContext
from fl.types import Artifact, PublicData

if TYPE_CHECKING:
    from fl.generators.architecture import Generator

HELD_OUT = 0.1
"""Share of the public images that quality is measured on, and no generator is trained on."""

SAMPLES = 64
"""Images kept in the artifact for people to look at."""

COLUMNS, MOST_ROWS = 8, 10
"""Of a generator that draws by class, so many images of each of the first classes are kept instead."""

_CHUNK, _LARGE_CHUNK = 64, 4
_WEIGHTS, _CRITIC = "weights.", "critic."


def train(config: Mapping[str, JSON], inputs: Mapping[str, Artifact], context: StageContext) -> Artifact:
    """Make the generator that a `generator_stage` asks for.

    Returns:
        Tensors: its weights under `weights.`, its critic's under `critic.` where that is kept, and `samples`,
        uint8: `64 x C x H x W`, or 8 of each of the first classes, class by class. Data: `layout`; and
        `quality` (`fl.generators.quality.distances` and `by_class`), where there are public images, labelled
        if it draws by class, and it draws no more than `MAX_SIZE` pixels a side.

    Raises:
        DataUnavailableError: If it is to be trained and there are no public images, or they lack labels that
            it needs, or a checkpoint cannot be had.
        BenchError: If the training diverged, or images are not finite.
    """
    held: Any = config
    channels, size = held["image"]
    critic: Critic | None = None
    if "checkpoint" in context.files:
        read = files.read(context.files["checkpoint"], held["generator"].get("architecture", "upsampling"))
        generator = files.build(read.layout.showing(size), read.state_dict())
    else:
        wanted = GeneratorConfig(**held["generator"])
        layout = wanted.trained_layout(channels, size, classes=held.get("classes", 0))
        training = _trained(wanted, layout, context)
        generator = files.frozen(training.average)
        critic = training.critic if wanted.critic else None
    return _artifact(generator.to(context.device), critic, context)


def load(artifact: Artifact, device: torch.device | str = "cpu") -> Generator:
    """Return the generator of a stage's artifact, in eval mode, without gradients."""
    return files.build(_stored_layout(artifact), under(_WEIGHTS, artifact.tensors)).to(device)


def load_critic(artifact: Artifact, device: torch.device | str = "cpu") -> Critic:
    """Return the critic of a stage's artifact, in eval mode, without gradients in its weights.

    Raises:
        NotApplicableError: If it was not kept.
    """
    weights = under(_CRITIC, artifact.tensors)
    if not weights:
        raise NotApplicableError("expected a prior with its critic, got one without; critic: true keeps it")
    critic = Critic(_stored_layout(artifact))
    critic.load_state_dict(weights)
    return critic.eval().requires_grad_(False).to(device)


def _stored_layout(artifact: Artifact) -> Layout:
    layout: Any = artifact.data["layout"]
    return Layout(**layout)


def split(images: Tensor, streams: Streams) -> tuple[Tensor, Tensor]:
    """Return the images to train on and the held-out ones, drawn from the seed's stream; or their labels."""
    order = torch.randperm(len(images), generator=streams.torch("generator_held_out"))
    held_out = max(1, math.floor(HELD_OUT * len(images)))
    return images[order[held_out:]], images[order[:held_out]]


def _trained(config: GeneratorConfig, layout: Layout, context: StageContext) -> Training:
    images, _ = split(public_images(context.public), context.streams)
    labels = _labels(context.public, context) if layout.classes and context.public is not None else None
    training = Training(config, layout, images.to(context.device), context.streams, labels)
    remedy = f"give the generator a smaller lr than {config.step_size:g}"
    resumable.finish(training, training.step, context, steps=config.steps, name=config.kind, remedy=remedy)
    return training


def public_images(public: PublicData | None) -> Tensor:
    """Return the public images, `N x C x H x W` in [0, 1].

    Raises:
        DataUnavailableError: If there are none.
    """
    if public is None:
        raise DataUnavailableError(
            "a generator is trained on public images, and there are none; name a data set with public:"
        )
    return public.images


def _labels(public: PublicData, context: StageContext) -> Tensor:
    """Return the labels of the images to train on.

    Raises:
        DataUnavailableError: If a public image is of no class.
    """
    missing = int((public.labels == UNLABELLED).sum())
    if missing:
        raise DataUnavailableError(
            f"expected a label for every public image (conditional: true), got {missing} of "
            f"{len(public.labels)} without one; leave it out, or name a labelled data set with public:"
        )
    return split(public.labels, context.streams)[0].to(context.device)


def _artifact(generator: Generator, critic: Critic | None, context: StageContext) -> Artifact:
    samples = as_bytes(_samples(generator, context.streams.torch("generator_samples")))
    data: dict[str, Any] = {"layout": generator.layout.document()}
    if context.public is not None and _judged(generator, context.public):
        data["quality"] = _quality(generator, context.public, context.streams)
    weights = {f"{_WEIGHTS}{name}": tensor.cpu() for name, tensor in generator.state_dict().items()}
    if critic is not None:
        weights |= {f"{_CRITIC}{name}": tensor.cpu() for name, tensor in critic.state_dict().items()}
    return Artifact({**weights, "samples": samples}, data)


def as_bytes(samples: Tensor) -> Tensor:
    """Return a generator's images in [0, 1], `n x C x H x W`, as uint8.

    Raises:
        BenchError: If one is not finite.
    """
    if not bool(samples.isfinite().all()):
        raise BenchError(
            "expected finite images of the generator, got others: its weights are too large to compute with; "
            "train it with a smaller lr, or name another checkpoint"
        )
    return (samples * 255).round().to(torch.uint8)


def _judged(generator: Generator, public: PublicData) -> bool:
    """Return whether to measure quality: of those that draw by class, where the public images have labels."""
    if generator.layout.size > MAX_SIZE:
        return False  # as many images as are public would take days on a CPU
    if not generator.classes:
        return True
    labels = public.labels
    if labels.ndim > 1:
        return labels.shape[1] == generator.classes
    return bool(labels.min() >= 0) and bool(labels.max() < generator.classes)


def _samples(generator: Generator, stream: torch.Generator) -> Tensor:
    """Return samples for people to look at: by class, each row has the same latent vectors."""
    if not generator.classes:
        return _draw(generator, torch.randn(SAMPLES, generator.latent, generator=stream), None)
    labels = class_labels(generator.classes)[:MOST_ROWS]
    latents = torch.randn(COLUMNS, generator.latent, generator=stream)
    return _draw(generator, latents.repeat(len(labels), 1), labels.repeat_interleave(COLUMNS, 0))


def class_labels(classes: int) -> Tensor:
    """Return a label of each class as a vector, `k x classes`: one-hot, and 0 and 1 of a single output."""
    return torch.eye(classes) if classes > 1 else torch.tensor([[0.0], [1.0]])


def _quality(generator: Generator, public: PublicData, streams: Streams) -> dict[str, float]:
    seen, held_out = split(public.images, streams)
    stream = streams.torch("generator_quality")
    number = quality.SETS * len(held_out)
    latents = torch.randn(number, generator.latent, generator=stream)
    if not generator.classes:
        return quality.distances(_draw(generator, latents, None), seen, held_out, stream)
    labels = public.labels[torch.randint(len(public.labels), (number,), generator=stream)]
    found = quality.distances(_draw(generator, latents, labels), seen, held_out, stream)
    latents = torch.randn(len(public.labels), generator.latent, generator=stream)
    drawn = _draw(generator, latents, public.labels)
    return found | quality.by_class(drawn, public.images, public.labels, stream)


def _draw(generator: Generator, latents: Tensor, labels: Tensor | None) -> Tensor:
    """Return the samples on the CPU."""
    device = next(generator.parameters()).device
    chunk = _CHUNK if generator.layout.size <= MAX_SIZE else _LARGE_CHUNK
    chunks = []
    with torch.no_grad():
        for places in torch.split(torch.arange(len(latents)), chunk):
            given = None if labels is None else labels[places].to(device)
            chunks.append(generator(latents[places].to(device), given).cpu())
    return torch.cat(chunks)
