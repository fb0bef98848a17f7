"""Generators of the small problems' images, drawn and not trained, and attacks through them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

from attacks.base import Attack, Reconstruction, Snapshot
from attacks.cards_generative import PRIOR
from attacks.engine.table import at_most
from fl.generators.architecture import Generator, initialise
from fl.generators.layout import Layout
from fl.seeds import Streams
from fl.specs import Config
from fl.types import Artifact
from harness.testing.problems import SmallProblem

SIZE, LATENT = 16, 6
CONTRAST = 3.0
"""On the weights of the last convolution, so that images of random weights are not all gray."""


def small_generator(
    channels: int, *, seed: int = 0, width: int = 2, classes: int = 0, mapping_layers: int = 0
) -> Generator:
    """Return a generator with random weights, in eval mode, without gradients.

    Args:
        channels: Of its images, `channels x 16 x 16` in [0, 1].
        seed: Of its weights.
        width: Feature maps of its last block.
        classes: Entries of a label as a vector; 0: it takes no labels.
        mapping_layers: Layers between latent vector, of 6 entries, and synthesis.
    """
    layout = Layout("upsampling", channels, SIZE, LATENT, width, mapping_layers, classes=classes)
    generator = Generator(layout)
    initialise(generator, Streams(seed).torch("generator_weights"))
    with torch.no_grad():
        generator.synthesis.to_images.get_parameter("weight").mul_(CONTRAST)
    return generator.eval().requires_grad_(False)


def generator_artifact(generator: Generator) -> Artifact:
    """Return a generator as its stage hands it to an attack (`fl.generators.stage.load` reads it)."""
    weights = {f"weights.{name}": tensor for name, tensor in generator.state_dict().items()}
    return Artifact(weights, {"layout": generator.layout.document()})


def solve_through_generator(
    attack: type[Attack[Any]],
    small: SmallProblem,
    config: Config,
    generator: Generator | None = None,
    *,
    reference: bool = False,
    **changes: Any,
) -> tuple[Reconstruction, list[Snapshot]]:
    """Attack a small problem through a generator.

    Args:
        attack: The attack's class.
        small: The problem.
        config: The attack's configuration.
        generator: By default a small one with random weights.
        reference: Whether the plain loop solves it rather than lanes.
        changes: To the task (`SmallProblem.attack_task`).

    Returns:
        The reconstruction, and every snapshot on the way.
    """
    env = small.env()
    artifacts = {PRIOR: generator_artifact(generator or small_generator(small.channels))}
    task = small.attack_task(config, artifacts=artifacts, **changes)
    with at_most(0) if reference else nullcontext():
        answer = next(iter(attack().solve([task], env)))
    assert isinstance(answer, Reconstruction), f"expected a reconstruction, got {answer}"
    return answer, env.snapshots[task.task_id]
