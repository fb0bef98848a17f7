"""Independent noise of mean 0 on every entry of the update, whatever its distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from defenses.base import ClientContext, ClientDefense, Step
from defenses.cards_update import NoiseScale
from defenses.norms import gradient_unit, root_mean_square
from fl.types import Update

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class AdditiveNoise(ClientDefense):
    """A client that adds `amount` times the noise of `draw` to its update.

    Args:
        amount: In units of `scale`; 0 leaves the update as it is.
        scale: `absolute`: units of the gradient; `relative`: the root mean square of the update's entries.
        draw: From a tensor and a generator to noise of the tensor's shape, type and device.
        context: What the client is told.
    """

    def __init__(
        self,
        amount: float,
        scale: NoiseScale,
        draw: Callable[[Tensor, torch.Generator], Tensor],
        context: ClientContext,
    ) -> None:
        self._amount = amount
        self._relative = scale == "relative"
        self._draw = draw
        self._unit = gradient_unit(context)

    def protect(self, update: Update, step: Step) -> Update:
        """Add noise from the step's stream."""
        if self._amount == 0:
            return update
        scale = root_mean_square(update.tensors) if self._relative else self._unit
        noisy = {
            name: tensor + self._amount * scale * self._draw(tensor, step.stream)
            for name, tensor in update.tensors.items()
        }
        return replace(update, tensors=noisy)
