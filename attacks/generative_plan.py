"""What a search through a generator is like: restarts, steps of both phases, and what is minimised."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from attacks.matching import Recipe

MILESTONES = (3 / 8, 5 / 8, 7 / 8)
"""Shares of a phase's iterations after which its steps shrink (Geiping et al. 2020; Jeon et al. 2021)."""


@dataclass(frozen=True)
class Phase:
    """Steps of Adam.

    Attributes:
        iterations: Their number; the point where they end is evaluated too.
        lr: Their size.
        decay: What they shrink by after each of `MILESTONES`.
    """

    iterations: int
    lr: float
    decay: float

    def rate(self, iteration: int) -> float:
        """Return the step size of an iteration, from 0."""
        passed = sum(iteration >= int(share * self.iterations) for share in MILESTONES)
        return self.lr * self.decay**passed


@dataclass(frozen=True)
class Plan:
    """A search through a generator.

    Attributes:
        recipe: What is minimised in the images.
        restarts: First latent vectors.
        latent: The search for latent vectors.
        parameters: The search for the generator's weights that follows, or None.
        latent_norm: Weight of the latent vectors' mean Euclidean norm.
    """

    recipe: Recipe
    restarts: int
    latent: Phase
    parameters: Phase | None
    latent_norm: float = 0.0

    @property
    def evaluations(self) -> int:
        """Of the objective, all told."""
        last = 0 if self.parameters is None else self.parameters.iterations + 1
        return self.restarts * (self.latent.iterations + 1) + last

    def within(self, limit: int | None) -> Plan:
        """Return the plan for at most so many evaluations, at least 1: both phases keep their shares."""
        if limit is None or self.evaluations <= limit:
            return self
        restarts = max(1, min(self.restarts, limit // 2))
        share = self.restarts * (self.latent.iterations + 1) / self.evaluations
        each = max(1, math.floor(limit * share / restarts))
        left = limit - restarts * each
        latent = replace(self.latent, iterations=each - 1)
        parameters = replace(self.parameters, iterations=left - 1) if self.parameters and left > 1 else None
        return replace(self, restarts=restarts, latent=latent, parameters=parameters)
