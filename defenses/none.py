"""No defense."""

from __future__ import annotations

from dataclasses import dataclass

from defenses.base import Defense
from fl.specs import NoConfig
from fl.types import Observation, Tensors


@dataclass(frozen=True)
class NoDefense(Defense[NoConfig]):
    """Plain training; an adaptive attacker has nothing to model."""

    def estimate(self, observation: Observation) -> Tensors:
        """Return no parameters."""
        return {}

    def mirror(self, params: Tensors, gradients: Tensors) -> Tensors:
        """Return the gradients themselves."""
        return gradients
