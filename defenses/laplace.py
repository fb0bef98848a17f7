"""Laplace noise on the update."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from defenses.additive_noise import AdditiveNoise
from defenses.base import ClientContext, ClientDefense, Defense
from defenses.cards_update import LaplaceConfig
from fl.types import Observation, Tensors


@dataclass(frozen=True)
class Laplace(Defense[LaplaceConfig]):
    """Add independent Laplace(0, b) to every entry (Zhu et al. 2019, arXiv 1906.08935, section 5.1).

    The density is exp(-|x| / b) / 2b and the standard deviation b sqrt(2). There is no clipping and no
    privacy accounting here. The noise has mean 0 whatever the images are, so the mirror is the identity.
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that adds noise to its update."""
        return AdditiveNoise(self.config.b, self.config.scale, standard_laplace, context)

    def estimate(self, observation: Observation) -> Tensors:
        """Return no parameters: the best answer to additive noise does not depend on them."""
        return {}

    def mirror(self, params: Tensors, gradients: Tensors) -> Tensors:
        """Return the gradients themselves."""
        return gradients


def standard_laplace(like: Tensor, stream: torch.Generator) -> Tensor:
    """Draw Laplace(0, 1) in the shape of `like`, on the CPU: the difference of two Exp(1)."""
    first, second = (torch.empty(like.shape, dtype=like.dtype).exponential_(generator=stream) for _ in "ab")
    return (first - second).to(like.device)
