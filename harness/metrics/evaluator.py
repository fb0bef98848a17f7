"""Evaluators: classifiers of all classes that judge model inversion, trained on images that no attack sees.

The reference trains one on MNIST's ten digits and takes a published face recogniser for CelebA. Here each
data set has its own, trained on its evaluation part. With few images of each of many people that is a far
weaker judge than a face recogniser: read its accuracy beside what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fl.errors import DataUnavailableError
from fl.generators import resumable
from fl.specs import JSON
from fl.stage_context import StageContext
from fl.types import Artifact
from harness.metrics.evaluator_costs import FEATURES, steps_for
from harness.metrics.evaluator_network import EvaluatorNetwork
from harness.metrics.evaluator_training import Training
from harness.metrics.inversion import Views
from harness.metrics.pairs import Embedding

if TYPE_CHECKING:
    from fl.data.base import Part

REMEDY = "look at the data set's evaluation images, which it is trained on"
"""What to try if the training diverges."""

BLOCK = 64
"""Images seen at once. A block is always full, so what is seen of an image does not depend on the others."""

SEEN_BYTES = 64 * 2**20
"""What an evaluator remembers of images it saw."""

READ = 512
"""Images of a part that are in memory at once."""


@dataclass(frozen=True)
class Evaluator:
    """A trained evaluator.

    Attributes:
        network: In evaluation mode, on the device to compute on.
        labels: Classes that it was trained to tell apart.
        accuracy: On the test part; None where that is empty.
    """

    network: EvaluatorNetwork
    labels: frozenset[int]
    accuracy: float | None

    def see(self, images: Tensor, labels: Tensor) -> Views:
        """Look at images, n >= 1.

        Args:
            images: `n x C x H x W` in [0, 1].
            labels: The class that each is of, or is meant to be of, `n` int64.
        """
        found = self._embedding(images)
        return Views(labels, found[:, :FEATURES], found[:, FEATURES:].softmax(1))

    def see_part(self, part: Part, positions: list[int]) -> Views:
        """Look at images of a part by position, at least one, a few at a time."""
        chunks = [positions[start : start + READ] for start in range(0, len(positions), READ)]
        views = [self.see(part.images(chunk), part.labels[chunk]) for chunk in chunks]
        return Views(
            part.labels[positions],
            torch.cat([view.features for view in views]),
            torch.cat([view.probabilities for view in views]),
        )

    @cached_property
    def _embedding(self) -> Embedding:
        return Embedding(self._embed, block=BLOCK, max_bytes=SEEN_BYTES)

    def _embed(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            features = self.network.features(images.to(self.network.head.weight.device))
            return torch.cat([features, self.network.head(features)], 1).cpu()


def train(config: Mapping[str, JSON], inputs: Mapping[str, Artifact], context: StageContext) -> Artifact:
    """Train the evaluator that an `evaluator_stage` asks for.

    The streams of a judge's stage are the same in trials of every seed, so each data set has one evaluator.

    Returns:
        Tensors: its weights. Data: `classes`, `channels` and `size` of its network, the `labels` that occur,
        the number of `images` that it was trained on, and its `accuracy` on the test part (None without).

    Raises:
        DataUnavailableError: If the evaluation images are of fewer than two classes.
        BenchError: If the training diverged.
    """
    held: Any = config
    part = context.part("evaluation")
    labels = sorted(set(part.labels.tolist()))
    if len(labels) < 2:
        raise DataUnavailableError(
            f"an evaluator tells classes apart: expected evaluation images of at least 2, got {len(labels)}; "
            "change evaluation_labels:"
        )
    channels, size = part.images([0]).shape[1:3]
    shape = {"channels": channels, "size": size, "classes": held["classes"]}
    network = _trained(shape, part, context)
    accuracy = _accuracy(_ready(network, labels, None), context.part("test"))
    weights = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    return Artifact(weights, {**shape, "labels": labels, "images": len(part), "accuracy": accuracy})


def load(artifact: Artifact, device: torch.device | str = "cpu") -> Evaluator:
    """Return the evaluator of a stage's artifact."""
    data: Any = artifact.data
    network = EvaluatorNetwork(data["channels"], data["size"], data["classes"])
    network.load_state_dict(dict(artifact.tensors))
    return _ready(network.to(device), data["labels"], data["accuracy"])


def _trained(shape: dict[str, int], part: Part, context: StageContext) -> EvaluatorNetwork:
    steps = steps_for(len(part))
    network, average = EvaluatorNetwork(**shape), EvaluatorNetwork(**shape)
    training = Training(network, average, steps, context.streams, context.device)

    def step() -> None:
        chosen = training.draw(len(part))
        training.step(part.images(chosen), part.labels[chosen])

    resumable.finish(training, step, context, steps=steps, name="evaluator", remedy=REMEDY)
    return average


def _ready(network: EvaluatorNetwork, labels: list[int], accuracy: float | None) -> Evaluator:
    return Evaluator(network.eval().requires_grad_(False), frozenset(labels), accuracy)


def _accuracy(evaluator: Evaluator, test: Part) -> float | None:
    """Return the share of test images of the evaluator's classes that it names right; None without any."""
    positions = [p for p, label in enumerate(test.labels.tolist()) if label in evaluator.labels]
    if not positions:
        return None
    views = evaluator.see_part(test, positions)
    return float((views.named == views.labels).double().mean())
