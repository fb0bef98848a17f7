"""What a search through a generator is like: restarts, steps of its phases, and what is minimised."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from attacks.cards_generative import GenerativeConfig
from attacks.matching import Recipe
from attacks.optimizers import Adam

MILESTONES = (3 / 8, 5 / 8, 7 / 8)
"""Shares of a phase's iterations after which its steps shrink (Geiping et al. 2020; Jeon et al. 2021)."""


RISE, FALL = 0.05, 0.75
"""Shares of a phase's iterations."""


@dataclass(frozen=True)
class Phase:
    """Steps of Adam.

    Attributes:
        iterations: Their number; the point where they end is evaluated too.
        lr: Their size.
        decay: What they shrink by after each of `MILESTONES`; None: they rise over the first `RISE` of the
            iterations, from 0, and fall over the last `FALL` along a cosine (Fang et al. 2023, their code).
    """

    iterations: int
    lr: float
    decay: float | None

    def rate(self, iteration: int) -> float:
        """Return the step size of an iteration, from 0."""
        if self.decay is None:
            done = iteration / self.iterations
            fall = (1 - math.cos(math.pi * min(1.0, (1 - done) / FALL))) / 2
            return self.lr * fall * min(1.0, done / RISE)
        passed = sum(iteration >= int(share * self.iterations) for share in MILESTONES)
        return self.lr * self.decay**passed


@dataclass(frozen=True)
class Features:
    """The search for what enters one block of the generator after the other, the first block left out.

    Attributes:
        phase: The steps of each.
        radii: Of the l1 ball around its first features, for each.
    """

    phase: Phase
    radii: tuple[float, ...]

    @property
    def evaluations(self) -> int:
        """Of the objective, in one restart."""
        return len(self.radii) * (self.phase.iterations + 1)


@dataclass(frozen=True)
class Plan:
    """A search through a generator.

    Attributes:
        recipe: What is minimised in the images.
        restarts: First latent vectors.
        latent: The search for latent vectors.
        parameters: The search for the generator's weights that follows the best restart, or None.
        features: The search for the generator's features that follows in every restart, or None.
        latent_norm: Weight of the latent vectors' mean Euclidean norm.
    """

    recipe: Recipe
    restarts: int
    latent: Phase
    parameters: Phase | None
    features: Features | None = None
    latent_norm: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Restarts and iterations, by which plans of one configuration differ."""
        steps = 0 if self.parameters is None else self.parameters.iterations
        depth = 0 if self.features is None else len(self.features.radii)
        return (self.restarts, self.latent.iterations, steps, depth)

    @property
    def evaluations(self) -> int:
        """Of the objective, all told."""
        last = 0 if self.parameters is None else self.parameters.iterations + 1
        between = 0 if self.features is None else self.features.evaluations
        return self.restarts * (self.latent.iterations + 1 + between) + last

    def through(self, blocks: int) -> Plan:
        """Return the plan for a generator of so many blocks, each of whose outputs may be searched for."""
        if self.features is None:
            return self
        return replace(self, features=replace(self.features, radii=self.features.radii[:blocks]))

    def within(self, limit: int | None) -> Plan:
        """Return the plan for at most so many evaluations, at least 1: all phases keep their shares."""
        if limit is None or self.evaluations <= limit:
            return self
        if self.features is not None:
            return self._walk_within(self.features, limit)
        restarts = max(1, min(self.restarts, limit // 2))
        share = self.restarts * (self.latent.iterations + 1) / self.evaluations
        each = max(1, math.floor(limit * share / restarts))
        left = limit - restarts * each
        latent = replace(self.latent, iterations=each - 1)
        parameters = replace(self.parameters, iterations=left - 1) if self.parameters and left > 1 else None
        return replace(self, restarts=restarts, latent=latent, parameters=parameters)

    def _walk_within(self, features: Features, limit: int) -> Plan:
        """Give up restarts first, then blocks; phases keep at least a step where they can."""
        phases = len(features.radii) + 1
        restarts = max(1, min(self.restarts, limit // (2 * phases)))
        each = limit // restarts
        phases = max(1, min(phases, each // 2))
        steps = each // phases - 1
        walk = Features(replace(features.phase, iterations=steps), features.radii[: phases - 1])
        return replace(self, restarts=restarts, latent=replace(self.latent, iterations=steps), features=walk)


def recipe(config: GenerativeConfig, *, restarts: int, steps: int, lr: float) -> Recipe:
    """Return what a configuration minimises in the images.

    Args:
        config: The attack's.
        restarts: First latent vectors.
        steps: Of Adam on them.
        lr: Their size.
    """
    return Recipe(
        cost=config.cost,
        total_variation=config.total_variation,
        variation=config.variation,
        image_norm=config.image_norm,
        batch_norm=config.batch_norm,
        labels="infer",
        init="zeros",
        restarts=restarts,
        optimizer=lambda problem: Adam(steps, lr, signed=False, decay=False, box=None),
    )
