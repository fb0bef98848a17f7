"""Clipping of the update's norm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from defenses.base import ClientContext, ClientDefense, Defense, Step
from defenses.catalog import ClippingConfig
from defenses.norms import global_norm, gradient_unit
from fl.types import Observation, Tensors, Update


@dataclass(frozen=True)
class Clipping(Defense[ClippingConfig]):
    """Scale the update by min(1, bound / norm), norm taken over all tensors.

    Source: Abadi et al. 2016, arXiv 1607.00133, section 3.1, applied to the mean gradient of a batch as the
    gradient-inversion literature does. An update within the bound is left bit for bit as it is. It keeps the
    direction, so it does nothing against an attack that matches directions only.
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that clips its update."""
        return _Clip(self.config.bound * gradient_unit(context))

    def estimate(self, observation: Observation) -> Tensor:
        """Return the observed norm, a scalar: where clipping bit, this is the bound."""
        return global_norm(observation.update.tensors)

    def mirror(self, params: Tensor, gradients: Tensors) -> Tensors:
        """Clip to the observed norm."""
        return _clip(gradients, params)


class _Clip(ClientDefense):
    def __init__(self, bound: float) -> None:
        self._bound = bound

    def protect(self, update: Update, step: Step) -> Update:
        norm = global_norm(update.tensors)
        return replace(update, tensors=_clip(update.tensors, norm.new_tensor(self._bound)))


def _clip(tensors: Tensors, bound: Tensor) -> Tensors:
    """Written so that the factor is exactly 1 within the bound, and finite with its derivative at norm 0."""
    norm = global_norm(tensors)
    bound = bound.to(norm).clamp_min(torch.finfo(norm.dtype).tiny)
    factor = bound / norm.maximum(bound)
    return {name: tensor * factor for name, tensor in tensors.items()}
