"""Latents that a client draws between features and head, and what an attacker takes for the draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defenses.base import Batch, ClientDefense, Step
from defenses.gaussian import standard_normal
from defenses.observed import one_gradient_of_one_image
from fl.models.base import Classifier
from fl.types import Observation, Tensors, Update

BOTTLENECK, HEAD = "bottleneck", "head"
"""Modules of the wrapped classifier whose gradients depend on the draw."""


class Posterior(NamedTuple):
    """The latents' distribution, N(mean, deviation^2); both `n x latents`."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, statistics: Tensor, shift: float = 0.0) -> Posterior:
        """Read it from what an encoder gives.

        Args:
            statistics: `n x 2 latents`: means, and deviations before shift and softplus.
            shift: Added before the softplus.
        """
        mean, raw = statistics.chunk(2, 1)
        return cls(mean, F.softplus(raw + shift).clamp_min(torch.finfo(raw.dtype).tiny))

    def sample(self, noise: Tensor) -> Tensor:
        """Return the draw that standard normal noise stands for (Kingma, Welling 2014, arXiv 1312.6114)."""
        return self.mean + self.deviation * noise

    def divergence(self) -> Tensor:
        """Return KL(N(mean, deviation^2) || N(0, 1)), summed over latents, averaged over images, in nats."""
        squares = self.mean.square() + self.deviation.square()
        return (0.5 * (squares - 1) - self.deviation.log()).sum(1).mean()


class Latents(nn.Module):
    """From `n x 2 latents` to the means, `n x latents`; `latents` puts other values in their place.

    Args:
        shift: Added to what a deviation is the softplus of.
    """

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, statistics: Tensor) -> Tensor:
        """Return the means."""
        return statistics.chunk(2, 1)[0]


class Bottlenecked(Classifier):
    """A classifier with a bottleneck before its head.

    Args:
        model: The classifier; its own head is dropped.
        bottleneck: From its features, `n x features`, to what the head takes.
        head: The head.
    """

    def __init__(self, model: Classifier, bottleneck: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        del model.head
        self.classifier = model
        self.bottleneck = bottleneck
        self.head = head

    def features(self, x: Tensor) -> Tensor:
        """Return what the bottleneck makes of the classifier's features."""
        passed: Tensor = self.bottleneck(self.classifier.features(x))
        return passed

    @property
    def blocks(self) -> Mapping[str, nn.Module]:
        """The classifier's."""
        return self.classifier.blocks

    @property
    def cam_layer(self) -> nn.Module | None:
        """The classifier's."""
        return self.classifier.cam_layer


@contextmanager
def latents(model: nn.Module, draw: Callable[[Posterior], Tensor]) -> Iterator[list[Posterior]]:
    """Let the model's `Latents` pass on what `draw` makes of the posterior, and gather the posteriors."""
    seen: list[Posterior] = []
    layer = next(module for module in model.modules() if isinstance(module, Latents))

    def replaced(module: nn.Module, inputs: tuple[Tensor], means: Tensor) -> Tensor:
        seen.append(Posterior.of(inputs[0], layer.shift))
        return draw(seen[-1])

    handle = layer.register_forward_hook(replaced)
    try:
        yield seen
    finally:
        handle.remove()


class Drawing(ClientDefense):
    """Draws its latents from the step's stream, and adds beta times their divergence to the loss."""

    def __init__(self, beta: float) -> None:
        self._beta = beta

    def loss(self, step: Step, batch: Batch) -> Tensor:
        """Return the loss at a draw."""
        return self._loss_at(lambda p: p.sample(standard_normal(p.mean, step.stream)), step, batch)

    def _loss_at(self, draw: Callable[[Posterior], Tensor], step: Step, batch: Batch) -> Tensor:
        with latents(step.trainer.model, draw) as seen:
            logits = step.trainer.forward(batch.images)
        return step.trainer.task_loss(logits, batch.labels) + self._beta * seen[-1].divergence()


class AtTheMeans(Drawing):
    """As imagined by an attacker who knows no draw: it says nothing about gradients that depend on it.

    They are 0, for every cost the same as leaving them out of the comparison. Source: Scheliga et al. 2022,
    arXiv 2208.04767, who omit the gradients of PRECODE and of all layers behind it.
    """

    def loss(self, step: Step, batch: Batch) -> Tensor:
        """Return the loss at the means."""
        return self._loss_at(lambda p: p.mean, step, batch)

    def protect(self, update: Update, step: Step) -> Update:
        """Say nothing of bottleneck and head."""
        unknown = (f"{BOTTLENECK}.", f"{HEAD}.")
        kept = {
            name: torch.zeros_like(tensor) if name.startswith(unknown) else tensor
            for name, tensor in update.tensors.items()
        }
        return replace(update, tensors=kept)


class AtKnown(Drawing):
    """As imagined by an attacker who knows the latents that were drawn, `1 x latents`."""

    def __init__(self, beta: float, known: Tensor) -> None:
        super().__init__(beta)
        self._known = known

    def loss(self, step: Step, batch: Batch) -> Tensor:
        """Return the loss at the known latents."""
        noise = self._noise(step, batch)
        return self._loss_at(lambda p: p.sample(noise), step, batch)

    def _noise(self, step: Step, batch: Batch) -> Tensor:
        """Return the noise that gives the known latents.

        In the client's gradient noise does not depend on the weights, so they are held fixed here; it does
        depend on the images, which the attacker varies.
        """
        trainer = step.trainer
        before = trainer.snapshot()
        trainer.parameters = {name: tensor.detach() for name, tensor in trainer.parameters.items()}
        with latents(trainer.model, lambda p: p.mean) as seen:
            trainer.forward(batch.images)
        trainer.restore(before)
        (posterior,) = seen
        return (self._known.to(posterior.mean) - posterior.mean) / posterior.deviation


def simulated_drawing(beta: float, observation: Observation, reader: str) -> Drawing:
    """Return a client at the latents that the observation gives away, or at their means.

    Args:
        beta: The divergence's weight.
        observation: What the attacker sees.
        reader: Name of the linear layer that takes the latents.
    """
    known = latents_behind(observation, reader) if one_gradient_of_one_image(observation) else None
    return AtTheMeans(beta) if known is None else AtKnown(beta, known)


def latents_behind(observation: Observation, reader: str) -> Tensor | None:
    """Return the latents behind one gradient of one image, `1 x latents`; None where they do not show.

    What reads them is linear: its weight gradient is g z^T and its bias gradient g, so z = W^T g / |g|^2, in
    least squares. Source: as for any linear layer with a bias, Geiping et al. 2020, arXiv 2003.14053,
    proposition 3.1.

    Args:
        observation: What the attacker sees.
        reader: Name of the linear layer that takes the latents.
    """
    tensors: Tensors = observation.update.tensors
    weight, bias = (tensors.get(f"{reader}.{part}") for part in ("weight", "bias"))
    if weight is None or bias is None or not bool(bias.any()):
        return None
    return (bias @ weight / bias.square().sum()).unsqueeze(0)
