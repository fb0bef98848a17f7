"""What gradient matching adds to its distance: image priors, batch-norm statistics, agreeing restarts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import torch

from attacks.objectives import TINY, total_variation
from fl.batch_norm import SUFFIXES, Moments

if TYPE_CHECKING:
    from torch import Tensor

    from fl.types import Tensors

VariationName = Literal["anisotropic", "frobenius"]


class Variation(Protocol):
    """A measure of how much images vary from pixel to pixel."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return it for `n x C x H x W`, a scalar."""


class Group(NamedTuple):
    """Agreement between restarts that step together.

    Attributes:
        weight: Of the distance from their mean.
        start: The first iteration, from 0, at which the mean is taken.
        every: Iterations between two means.
    """

    weight: float
    start: int
    every: int

    def due(self, iteration: int) -> bool:
        """Whether the mean is taken before an iteration."""
        return iteration >= self.start and (iteration - self.start) % self.every == 0


def frobenius_variation(images: Tensor) -> Tensor:
    """Return the sum of four Frobenius norms, of horizontal, vertical and both diagonal steps, a scalar.

    Each norm is over all n images. Source: the image prior of DeepInversion (Yin et al. 2020, arXiv
    1912.08795) as the reference implementations of Hatamizadeh et al. 2023 and ShadowDef use it.
    """
    steps = (
        images[..., :, 1:] - images[..., :, :-1],
        images[..., 1:, :] - images[..., :-1, :],
        images[..., 1:, 1:] - images[..., :-1, :-1],
        images[..., 1:, :-1] - images[..., :-1, 1:],
    )
    return torch.stack([_norm(step) for step in steps]).sum()


def image_norm(images: Tensor) -> Tensor:
    """Return the mean over images of an image's Euclidean norm, a scalar, for `n x C x H x W`."""
    return (images.flatten(1).square().sum(1) + TINY).sqrt().mean()


def moments_distance(found: Mapping[str, Moments], statistics: Mapping[str, Moments]) -> Tensor:
    """Return the sum over batch norms of ||mean - mean*|| + ||variance - variance*||, a scalar.

    Source: Yin et al. 2021, arXiv 2104.07586, equation 9.
    """
    norms = [
        _norm(mine - theirs)
        for name, moments in statistics.items()
        for mine, theirs in zip(found[name], moments, strict=True)
    ]
    return torch.stack(norms).sum()


def group_distance(images: Tensor, mean: Tensor) -> Tensor:
    """Return the mean over images of their Euclidean distance from the restarts' mean, a scalar."""
    return image_norm(images - mean)


def as_moments(statistics: Tensors, device: torch.device) -> dict[str, Moments]:
    """Return statistics by layer that come by buffer name (`fl.batch_norm`)."""
    mean, variance = SUFFIXES
    layers = [name.removesuffix(mean) for name in statistics if name.endswith(mean)]
    return {
        layer: Moments(statistics[layer + mean].to(device), statistics[layer + variance].to(device))
        for layer in layers
    }


def _norm(tensor: Tensor) -> Tensor:
    return (tensor.square().sum() + TINY).sqrt()


VARIATIONS: Mapping[VariationName, Variation] = {
    "anisotropic": total_variation,
    "frobenius": frobenius_variation,
}
