"""Gaussian noise on the update."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from defenses.additive_noise import AdditiveNoise
from defenses.base import ClientContext, ClientDefense, Defense
from defenses.cards_update import GaussianConfig
from fl.types import Observation, Tensors


@dataclass(frozen=True)
class Gaussian(Defense[GaussianConfig]):
    """Add N(0, sigma^2) to every entry (Zhu et al. 2019, arXiv 1906.08935, section 5.1).

    There is no clipping and no privacy accounting here. Noise of known variance does not change which images
    fit best in least squares, so an adaptive attacker has nothing to gain from adding noise of its own, and
    the mirror is the identity.
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that adds noise to its update."""
        return AdditiveNoise(self.config.sigma, self.config.scale, standard_normal, context)

    def estimate(self, observation: Observation) -> Tensors:
        """Return no parameters: the best answer to additive noise does not depend on them."""
        return {}

    def mirror(self, params: Tensors, gradients: Tensors) -> Tensors:
        """Return the gradients themselves."""
        return gradients


def standard_normal(like: Tensor, stream: torch.Generator) -> Tensor:
    """Draw N(0, 1) in the shape of `like`, on the CPU, so that the noise is the same on every device."""
    return torch.randn(like.shape, generator=stream, dtype=like.dtype).to(like.device)
