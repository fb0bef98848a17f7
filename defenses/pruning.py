"""Pruning of the update's smallest entries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from defenses.base import ClientContext, ClientDefense, Defense, Step
from defenses.cards_update import PruningConfig, Scope
from fl.types import Observation, Tensors, Update


class Support(NamedTuple):
    """What was kept of an update.

    Attributes:
        entries: By parameter name, 1 where an entry was kept, else 0.
        sign: Of magnitudes, a scalar: -1 in a gradient that was inferred from a delta of magnitudes.
    """

    entries: Tensors
    sign: Tensor

    def share_zeroed(self) -> Tensor:
        """Return the share of all entries that were not kept, a scalar."""
        kept = torch.stack([entries.sum() for entries in self.entries.values()]).sum()
        return 1 - kept / sum(entries.numel() for entries in self.entries.values())


@dataclass(frozen=True)
class Pruning(Defense[PruningConfig]):
    """Zero the floor(ratio n + 0.5) entries of smallest magnitude of each tensor of n entries.

    With `scope: global`, of all n entries of all tensors. Source: Zhu et al. 2019, arXiv 1906.08935, section
    5.2. Of entries of equal magnitude the first go. The variant `as_released` keeps magnitudes without their
    signs, the error of the notebook that this project grew from (justinliu23/gradient-inversion-defense-fl);
    no label can be read from such an update.

    The mirror keeps the entries that the observation has, or, with `mirror: threshold`, zeroes the smallest
    entries of each tensor of a guess, as many as are 0 in the observation as a whole (Li et al. 2022, arXiv
    2203.15696, section 3.3).
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that prunes its update."""
        return _Prune(self.config)

    def estimate(self, observation: Observation) -> Support:
        """Return where the observed update is not 0, and which sign magnitudes have in it."""
        observed = observation.update.tensors
        total = torch.stack([tensor.sum() for tensor in observed.values()]).sum()
        return Support(
            {name: tensor.ne(0).to(tensor.dtype) for name, tensor in observed.items()},
            total.sign() if self.config.variant == "as_released" else torch.ones_like(total),
        )

    def mirror(self, params: Support, gradients: Tensors) -> Tensors:
        """Keep what the observation kept, or as much."""
        if self.config.mirror == "support":
            masked = {name: tensor * params.entries[name].to(tensor) for name, tensor in gradients.items()}
        else:
            masked = _pruned_by_share(gradients, params, self.config.scope)
        if self.config.variant == "standard":
            return masked
        return {name: params.sign.to(tensor) * tensor.abs() for name, tensor in masked.items()}


class _Prune(ClientDefense):
    def __init__(self, config: PruningConfig) -> None:
        self._config = config

    def protect(self, update: Update, step: Step) -> Update:
        prune = _prune_jointly if self._config.scope == "global" else _prune_each
        pruned = prune(update.tensors, self._config.ratio)
        return replace(
            update, tensors=_magnitudes(pruned) if self._config.variant == "as_released" else pruned
        )


def _pruned_by_share(tensors: Tensors, support: Support, scope: Scope) -> dict[str, Tensor]:
    """Zero the observed share of the smallest entries of each tensor, or of all; of equals all are kept."""
    share = support.share_zeroed().to(next(iter(tensors.values())))
    if scope == "per_tensor":
        return {name: tensor * _largest(tensor.detach(), share) for name, tensor in tensors.items()}
    joined = torch.cat([tensor.detach().flatten() for tensor in tensors.values()])
    masks = torch.split(_largest(joined, share), [tensor.numel() for tensor in tensors.values()])
    return {name: t * mask.view_as(t) for (name, t), mask in zip(tensors.items(), masks, strict=True)}


def _largest(tensor: Tensor, share: Tensor) -> Tensor:
    """Return 1 for all but that share of the smallest magnitudes, which get 0; the largest is always kept."""
    magnitudes = tensor.abs().flatten()
    rank = (share * tensor.numel() + 0.5).floor().long().clamp_max(tensor.numel() - 1)
    threshold = magnitudes.sort().values.gather(0, rank.view(1))
    return magnitudes.ge(threshold).to(tensor.dtype).view_as(tensor)


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
