"""Pruning of the update's smallest entries."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from defenses.base import ClientContext, ClientDefense, Defense, Step
from defenses.cards_update import PruningConfig
from fl.types import Observation, Tensors, Update


@dataclass(frozen=True)
class Pruning(Defense[PruningConfig]):
    """Zero the floor(ratio n + 0.5) entries of smallest magnitude of each tensor of n entries.

    With `scope: global`, of all n entries of all tensors. Source: Zhu et al. 2019, arXiv 1906.08935, section
    5.2. Of entries of equal magnitude the first go. The variant `as_released` keeps magnitudes without their
    signs, the error of the notebook that this project grew from (justinliu23/gradient-inversion-defense-fl);
    no label can be read from such an update.
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that prunes its update."""
        return _Prune(self.config)

    def estimate(self, observation: Observation) -> Tensors:
        """Return the support of the observed update: 1 where an entry is not 0, by parameter name."""
        return {name: tensor.ne(0).to(tensor.dtype) for name, tensor in observation.update.tensors.items()}

    def mirror(self, params: Tensors, gradients: Tensors) -> Tensors:
        """Keep what the observation kept."""
        masked = {name: tensor * params[name].to(tensor) for name, tensor in gradients.items()}
        return _magnitudes(masked) if self.config.variant == "as_released" else masked


class _Prune(ClientDefense):
    def __init__(self, config: PruningConfig) -> None:
        self._config = config

    def protect(self, update: Update, step: Step) -> Update:
        prune = _prune_jointly if self._config.scope == "global" else _prune_each
        pruned = prune(update.tensors, self._config.ratio)
        return replace(
            update, tensors=_magnitudes(pruned) if self._config.variant == "as_released" else pruned
        )


def _prune_each(tensors: Tensors, ratio: float) -> dict[str, Tensor]:
    return {name: _prune(tensor, ratio) for name, tensor in tensors.items()}


def _prune_jointly(tensors: Tensors, ratio: float) -> dict[str, Tensor]:
    joined = _prune(torch.cat([tensor.flatten() for tensor in tensors.values()]), ratio)
    parts = torch.split(joined, [tensor.numel() for tensor in tensors.values()])
    return {name: part.view_as(t) for (name, t), part in zip(tensors.items(), parts, strict=True)}


def _prune(tensor: Tensor, ratio: float) -> Tensor:
    """Return the tensor with exactly `floor(ratio n + 0.5)` of its smallest entries set to zero."""
    count = int(ratio * tensor.numel() + 0.5)
    if count == 0:
        return tensor
    smallest = tensor.detach().abs().flatten().argsort(stable=True)[:count]
    keep = tensor.new_ones(tensor.numel()).index_fill(0, smallest, 0).view_as(tensor)
    return tensor * keep


def _magnitudes(tensors: Tensors) -> dict[str, Tensor]:
    return {name: tensor.abs() for name, tensor in tensors.items()}
