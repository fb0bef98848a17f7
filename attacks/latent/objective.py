"""GGL's objective as a function of latent vectors, for a whole population at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from attacks.cards_ggl import GglConfig
from attacks.engine.population import Aim, population
from attacks.latent.regularisers import divergence, norm_deviation
from attacks.objectives import COSTS, Weights, squared_norm

if TYPE_CHECKING:
    from attacks.problem import Problem
    from fl.generators.architecture import Generator


class Evaluated(NamedTuple):
    """The objective at m points.

    Attributes:
        terms: By name, unweighted, each `m`; `total` is what is minimised.
        inputs: The images, normalised, `m x n x C x H x W`.
        slopes: Of the totals in the points, `m x D`, where asked for.
    """

    terms: Mapping[str, Tensor]
    inputs: Tensor
    slopes: Tensor | None


class LatentObjective:
    """D(y, T(grad L(f(G(z)), c))) + weights x regularisers, for the latent vectors z of n images.

    A point is the vectors of all n images, one after the other; regularisers are means over the images.

    Args:
        problem: The task's problem.
        generator: In eval mode, without gradients, on the device.
        labels: c: `n` int64, or `n x outputs` in [0, 1].
        config: The attack's.

    Attributes:
        formulation: How gradients are computed (`attacks.engine.population`).
        lanes: Points side by side.
        observed_norm: Euclidean norm of the observed gradient.
    """

    def __init__(self, problem: Problem, generator: Generator, labels: Tensor, config: GglConfig) -> None:
        self._problem, self._generator, self._labels, self._config = problem, generator, labels, config
        self._like = next(generator.parameters()).detach()
        order = [name for name, _ in problem.model.named_parameters() if name in problem.observed]
        self._weights = tensor_weights(order, config)
        self._population = population(
            Aim(problem, labels, config.cost, self._weights), most=config.side_by_side
        )
        self._kl = config.kl * (self._emptiness() if config.kl_scale == "gradient" else 1.0)
        self.formulation, self.lanes = self._population.formulation, self._population.lanes
        self.observed_norm = float(squared_norm(problem.observed).sqrt())

    @property
    def dimension(self) -> int:
        """D."""
        return self._problem.images * self._generator.latent

    def evaluate(self, points: Tensor) -> Evaluated:
        """Evaluate at points, `m x D`, all at once."""
        with torch.no_grad():
            latents = self._latents(points)
            inputs = torch.cat([self._draw(chunk) for chunk in torch.split(latents, self.lanes)])
        matching = self._population.distances(inputs)
        with torch.no_grad():
            return Evaluated(self._terms(matching, latents), inputs, None)

    def differentiate(self, point: Tensor) -> Evaluated:
        """Evaluate at a point, `1 x D`, and differentiate in it."""
        leaf = point.detach().to(self._like).requires_grad_()
        latents = self._latents(leaf)
        inputs = self._draw(latents)
        dummy = self._problem.gradients(inputs[0], self._labels)
        matching = COSTS[self._config.cost](dummy, self._problem.observed, self._weights)
        terms = self._terms(matching.view(1), latents)
        (slope,) = torch.autograd.grad(terms["total"].sum(), leaf)
        return Evaluated({name: term.detach() for name, term in terms.items()}, inputs.detach(), slope)

    def _terms(self, matching: Tensor, latents: Tensor) -> dict[str, Tensor]:
        config = self._config
        kl, norm = divergence(latents).mean(1), norm_deviation(latents).mean(1)
        total = matching + self._kl * kl + config.latent_norm * norm
        return {"matching": matching, "kl": kl, "latent_norm": norm, "total": total}

    def _latents(self, points: Tensor) -> Tensor:
        """View points as vectors, `m x n x k`, on the device."""
        return points.to(self._like).view(len(points), self._problem.images, -1)

    def _draw(self, latents: Tensor) -> Tensor:
        """From vectors to normalised images."""
        vectors = latents.flatten(0, 1)
        labels = None
        if self._generator.classes:
            labels = self._labels.repeat(len(latents), *[1] * (self._labels.ndim - 1))
        images = self._generator(vectors.tanh() if self._config.tanh else vectors, labels)
        inputs = self._problem.task.observation.image.normalise(images)
        return inputs.view(*latents.shape[:2], *inputs.shape[1:])

    def _emptiness(self) -> float:
        """Return the distance of the observed gradient from zero."""
        observed = self._problem.observed
        nothing = {name: torch.zeros_like(tensor) for name, tensor in observed.items()}
        return float(COSTS[self._config.cost](nothing, observed, self._weights))


def tensor_weights(names: list[str], config: GglConfig) -> Weights:
    """Return what each tensor counts in the distance, given their names in the model's order.

    Distances but the cosine are means over tensors. Source of the released weights: the authors' code, where
    what comes after the sixtieth tensor counts fully.
    """
    share = 1.0 if config.cost == "cosine" else 1 / len(names)
    if config.layer_weights == "none":
        return dict.fromkeys(names, share)
    return {name: share * (2.0 ** -(i // 3) if i < _FALLING else 1.0) for i, name in enumerate(names)}


_FALLING = 60
"""Tensors whose weight falls."""
