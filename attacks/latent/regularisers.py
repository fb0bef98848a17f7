"""What keeps latent vectors where the generator was trained: near N(0, 1) in every entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_TINY = 1e-10


def divergence(latents: Tensor) -> Tensor:
    """Return the KL divergence of N(m, v) from N(0, 1), m and v being those of a vector's own entries.

    Source: Li et al. 2022, arXiv 2203.15696, section 3.3 (R1); the released code takes one vector's entries
    as samples of one normal distribution, where the paper's formula has a sum over entries.

    Args:
        latents: `... x k`.

    Returns:
        `...`, not below 0.
    """
    mean, variance = latents.mean(-1), latents.var(-1, correction=0)
    return -(1 + (variance + _TINY).log() - mean.square() - variance) / 2


def norm_deviation(latents: Tensor) -> Tensor:
    """Return (|z|^2 - k)^2 of each vector of `... x k` (Li et al. 2022, section 3.3, R2): `...`."""
    return (latents.square().sum(-1) - latents.shape[-1]).square()
