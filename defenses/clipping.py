"""Clipping of the update's norm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from defenses.base import ClientContext, ClientDefense, Defense, Step
from defenses.cards_update import ClippingConfig, Scope
from defenses.norms import global_norm, gradient_unit
from fl.types import Observation, Tensors, Update


@dataclass(frozen=True)
class Clipping(Defense[ClippingConfig]):
    """Scale the update by min(1, bound / norm), norm taken over all tensors, or each tensor by its own.

    Source: Abadi et al. 2016, arXiv 1607.00133, section 3.1, applied to the mean gradient of a batch as the
    gradient-inversion literature does. An update within the bound is left bit for bit as it is. One norm over
    all keeps the direction, so it does nothing against an attack that matches directions only.
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that clips its update."""
        return _Clip(self.config.bound * gradient_unit(context), self.config.scope)

    def estimate(self, observation: Observation) -> Tensor | Tensors:
        """Return the observed norm, a scalar, or each tensor's by name: where clipping bit, the bound."""
        tensors = observation.update.tensors
        if self.config.scope == "global":
            return global_norm(tensors)
        return {name: torch.linalg.vector_norm(tensor) for name, tensor in tensors.items()}

    def mirror(self, params: Tensor | Tensors, gradients: Tensors) -> Tensors:
        """Clip to the observed norm or norms."""
        if isinstance(params, Tensor):
            return _clip(gradients, params)
        return _clip_each(gradients, params)


class _Clip(ClientDefense):
    def __init__(self, bound: float, scope: Scope) -> None:
        self._bound = bound
        self._scope = scope

    def protect(self, update: Update, step: Step) -> Update:
        tensors = update.tensors
        if self._scope == "global":
            return replace(update, tensors=_clip(tensors, global_norm(tensors).new_tensor(self._bound)))
        bounds = {name: tensor.new_tensor(self._bound) for name, tensor in tensors.items()}
        return replace(update, tensors=_clip_each(tensors, bounds))


def _clip_each(tensors: Tensors, bounds: Tensors) -> Tensors:
    return {name: _clip({name: tensor}, bounds[name])[name] for name, tensor in tensors.items()}


def _clip(tensors: Tensors, bound: Tensor) -> Tensors:
    """Written so that the factor is exactly 1 within the bound, and finite with its derivative at norm 0."""
    norm = global_norm(tensors)
    bound = bound.to(norm).clamp_min(torch.finfo(norm.dtype).tiny)
    factor = bound / norm.maximum(bound)
    return {name: tensor * factor for name, tensor in tensors.items()}
