"""Rounding of the update to whole multiples of a fixed step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from defenses.base import ClientContext, ClientDefense, Defense, Step
from defenses.cards_update import FixedStepConfig
from defenses.norms import gradient_unit, observed_gradient_unit
from defenses.straight_through import straight_through
from fl.types import Observation, Tensors, Update

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FixedStep(Defense[FixedStepConfig]):
    """Replace g by step round(g / step), without limits and whatever the range of g.

    Step 1/15 is round(15 g) / 15, what the notebook that this project grew from calls 4-bit quantization
    (justinliu23/gradient-inversion-defense-fl).
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that rounds its update."""
        return _Round(self.config.step * gradient_unit(context))

    def estimate(self, observation: Observation) -> Tensor:
        """Return the step in units of the update, a scalar; the step is known, not inferred."""
        like = next(iter(observation.update.tensors.values()))
        return like.new_tensor(self.config.step * observed_gradient_unit(observation))

    def mirror(self, params: Tensor, gradients: Tensors) -> Tensors:
        """Round as the client did, straight through."""
        if self.config.step == 0:
            return gradients
        return _round(gradients, params)


class _Round(ClientDefense):
    def __init__(self, step: float) -> None:
        self._step = step

    def protect(self, update: Update, step: Step) -> Update:
        if self._step == 0:
            return update
        return replace(update, tensors=_round(update.tensors, self._step))


def _round(tensors: Tensors, step: Tensor | float) -> dict[str, Tensor]:
    return {
        name: straight_through((tensor / step).round() * step, tensor) for name, tensor in tensors.items()
    }
