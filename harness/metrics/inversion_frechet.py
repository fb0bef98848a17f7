"""How far the reconstructions' features are from those of real images, both taken as Gaussians."""

from __future__ import annotations

import torch
from torch import Tensor

from fl.errors import NotApplicableError
from harness.metrics.inversion import Inversion


def evaluator_fid(inversion: Inversion) -> float:
    """Return the Fréchet distance of Gaussians fitted to the evaluator's features of both sides.

    Raises:
        NotApplicableError: If there are fewer than two images on either side.
    """
    return frechet_distance(inversion.made.features, inversion.real.features)


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Return the Fréchet distance of the Gaussians fitted to `n x d` and `m x d` vectors.

    With covariances A'A and B'B its last term, the trace of (A'A B'B)^(1/2), is the sum of the singular
    values of A B': no root of a matrix that rounding has made indefinite is taken, however few vectors there
    are.

    Raises:
        NotApplicableError: If there are fewer than two of either.
    """
    if min(len(one), len(other)) < 2:
        raise NotApplicableError("a Gaussian is fitted to at least two images")
    a, b = _root(one), _root(other)
    means = (one.mean(0) - other.mean(0)).square().sum()
    shared = torch.linalg.svdvals(a @ b.T).sum()
    return max(float(means + a.square().sum() + b.square().sum() - 2 * shared), 0.0)


def _root(vectors: Tensor) -> Tensor:
    """Return A with A'A the unbiased covariance of `n x d` vectors, with no more than d rows."""
    centred = (vectors - vectors.mean(0)) / (len(vectors) - 1) ** 0.5
    triangular: Tensor = torch.linalg.qr(centred, mode="r").R
    return triangular
