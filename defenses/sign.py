"""The sign of every entry of the update."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from defenses.base import ClientContext, ClientDefense, Defense, Step
from defenses.cards_update import SignConfig
from defenses.norms import gradient_unit
from defenses.straight_through import straight_through
from fl.types import Observation, Tensors, Update

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_MEAN = 1e-12
"""Mean magnitude below which a tensor has no scale of its own; keeps derivatives of a zero tensor finite."""


@dataclass(frozen=True)
class Sign(Defense[SignConfig]):
    """Replace g by m sign(g); the sign of 0 is 0.

    With `magnitude: one`, m is one unit of the gradient (Bernstein et al. 2018, arXiv 1802.04434, Algorithm
    1); with `mean`, the mean of |g| over the tensor (Karimireddy et al. 2019, arXiv 1901.09847, Algorithm 1).
    The mirror takes signs as well, with the derivative of tanh(g / mean |g|): entries that are large for
    their tensor stay put, those near 0 move.
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that sends signs."""
        return _Signs(None if self.config.magnitude == "mean" else gradient_unit(context))

    def estimate(self, observation: Observation) -> Tensors:
        """Return the magnitude m by parameter name, scalars: the largest one observed."""
        return {name: tensor.abs().max() for name, tensor in observation.update.tensors.items()}

    def mirror(self, params: Tensors, gradients: Tensors) -> Tensors:
        """Take signs at the observed magnitudes."""
        return {name: params[name].to(tensor) * _sign(tensor) for name, tensor in gradients.items()}


class _Signs(ClientDefense):
    def __init__(self, magnitude: float | None) -> None:
        self._magnitude = magnitude

    def protect(self, update: Update, step: Step) -> Update:
        signs = {name: self._of(tensor) * _sign(tensor) for name, tensor in update.tensors.items()}
        return replace(update, tensors=signs)

    def _of(self, tensor: Tensor) -> Tensor | float:
        return tensor.abs().mean() if self._magnitude is None else self._magnitude


def _sign(tensor: Tensor) -> Tensor:
    mean = tensor.abs().mean().clamp_min(SMALLEST_MEAN)
    return straight_through(tensor.sign(), (tensor / mean).tanh())
