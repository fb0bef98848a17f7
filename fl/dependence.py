"""How much two things said of the same images depend on each other: HSIC, COCO and CKA of a batch.

All of it is computed in float64: kernels of a bandwidth far above the distances differ little from 1, and the
released estimator inverts what is left of them after centring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["gaussian", "linear", "imq"]

RIDGE = 1e-5
"""Per image, added to the diagonal of what the released HSIC inverts; from the reference implementation."""
SMALLEST_MEDIAN = 1e-2
"""Of the median rule, from the reference implementation."""
NOTHING = 1e-60
"""Sums of squares up to this are of constants: they depend on nothing, and have no derivative."""

Dependence = Callable[[Tensor, Tensor], Tensor]
"""From two kernel matrices, `n x n`, to a number."""


def kernel_matrix(values: Tensor, kernel: Kernel, bandwidth: float) -> Tensor:
    """Return the kernels of all pairs of a batch, `n x n` float64.

    Linear: a . b, of values less their mean over the batch. Gaussian: exp(-|a - b|^2 / (2 bandwidth^2 d)), d
    being the entries of an image's value; with a bandwidth of 0, exp(-|a - b|^2 / (2 s^2)), s being the
    median rule's (`median_rule`). Inverse multiquadric: 1 / sqrt(|a - b|^2 + 1).

    Args:
        values: `n x ...`; flattened.
        kernel: Which.
        bandwidth: Of the Gaussian kernel.
    """
    flat = values.reshape(len(values), -1).double()
    centred = flat - flat.mean(0)
    products = centred @ centred.T
    if kernel == "linear":
        return products
    squares = products.diagonal()
    distances = (squares.unsqueeze(1) + squares - 2 * products).clamp_min(0)
    if kernel == "imq":
        return (distances + 1).rsqrt()
    scale = bandwidth**2 * flat.shape[1] if bandwidth else median_rule(distances.detach()) ** 2
    return torch.exp(-distances / (2 * scale))


def median_rule(distances: Tensor) -> Tensor:
    """Return the released code's median of *squared* distances, a scalar.

    It is taken over the pairs of the batch and a second copy of it: every two images count four times, and
    every image once with itself. A median of 0 is replaced by the mean, and less than 0.01 by that.

    Args:
        distances: `n x n` squared distances of the batch.
    """
    n = len(distances)
    rows, columns = torch.tril_indices(n, n, -1, device=distances.device)
    pairs = torch.cat([distances[rows, columns].repeat(4), distances.new_zeros(n)])
    ordered = pairs.sort().values
    median = (ordered[(len(pairs) - 1) // 2] + ordered[len(pairs) // 2]) / 2
    return torch.where(median > 0, median, pairs.mean()).clamp_min(SMALLEST_MEDIAN)


def centre(kernels: Tensor) -> Tensor:
    """Return H K H, H = I - 11^T / n."""
    once = kernels - kernels.mean(0)
    return once - once.mean(1, keepdim=True)


def released_hsic(first: Tensor, second: Tensor, ridge: float = RIDGE) -> Tensor:
    """Return tr(R_1 R_2), R = K' (K' + ridge n I)^-1 of centred kernels K', in [0, n - 1].

    The normalised HSIC ("NOCCO", Fukumizu et al. 2007) as released with Peng et al. 2022, arXiv 2206.05483.
    Released code centres one side, K H, which gives the same number.

    Args:
        first: Kernel matrix of n images, `n x n`.
        second: Another of the same images.
        ridge: What is added to the diagonal, for each image.
    """
    return (_regressed(first, ridge) * _regressed(second, ridge).T).sum()


def _regressed(kernels: Tensor, ridge: float) -> Tensor:
    n = len(kernels)
    centred = centre(kernels)
    added = ridge * n * torch.eye(n, dtype=kernels.dtype, device=kernels.device)
    regressed: Tensor = torch.linalg.solve(centred + added, centred)
    return regressed


def released_coco(first: Tensor, second: Tensor) -> Tensor:
    """Return sqrt(|K'_1 K'_2|_F) / n of centred kernels: the constrained covariance as released.

    The definition has the largest eigenvalue in place of the Frobenius norm (`spectral_coco`), which is never
    larger.
    """
    squares = (centre(first) @ centre(second)).square().sum()
    return torch.where(squares > NOTHING, squares.clamp_min(NOTHING) ** 0.25, 0) / len(first)


def spectral_coco(first: Tensor, second: Tensor) -> Tensor:
    """Return the constrained covariance, sqrt(largest eigenvalue of K'_1 K'_2) / n of centred kernels.

    That is the largest covariance over the batch of a function of the one thing with a function of the
    other, both of norm 1 in their kernels' spaces: the largest singular value of the cross-covariance.
    Source: Gretton et al. 2005, Kernel Constrained Covariance for Dependence Measurement, AISTATS.
    """
    first, second = centre(first), centre(second)
    if not bool((first @ second).detach().square().sum() > NOTHING):
        return 0 * (first.sum() + second.sum())
    return largest_eigenvalue(first, second).sqrt() / len(first)


def largest_eigenvalue(first: Tensor, second: Tensor) -> Tensor:
    """Return the largest eigenvalue of A = KL, K and L symmetric without negative eigenvalues.

    First and second derivatives are exact where the eigenvalue is a simple one. It is u A v / u v at its
    eigenvectors, u from the left, which are moved here as A moves them to first order. Differentiating
    `torch.linalg.eigh` divides by gaps between all eigenvalues, of which kernels of few dimensions have
    many that are 0. A must not be 0.
    """
    product = first @ second
    with torch.no_grad():
        values, vectors = torch.linalg.eigh(first)
        root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        values, vectors = torch.linalg.eigh(root @ second @ root)
        largest = values[-1]
        right = root @ vectors[:, -1]
        left = second @ right
        projector = torch.outer(right, left) / (left @ right)
        others = largest * (torch.eye(len(product)).to(product) + projector) - product
        response = torch.linalg.pinv(others) - projector / largest
    right = right + response @ (product @ right)
    left = left + response.T @ (product.T @ left)
    eigenvalue: Tensor = left @ product @ right / (left @ right)
    return eigenvalue


def unbiased_hsic(first: Tensor, second: Tensor) -> Tensor:
    """Return the unbiased estimate of HSIC; that of independent draws is 0 on average, so it may be negative.

    Source: Song et al. 2012, Feature Selection via Dependence Maximization, JMLR 13, equation 5; n >= 4.
    """
    n = len(first)
    off = 1 - torch.eye(n, dtype=first.dtype, device=first.device)
    first, second = first * off, second * off
    sums = first.sum() * second.sum() / ((n - 1) * (n - 2))
    rows = first.sum(0) @ second.sum(0) * 2 / (n - 2)
    return ((first * second).sum() + sums - rows) / (n * (n - 3))


def cka(first: Tensor, second: Tensor) -> Tensor:
    """Return tr(K'_1 K'_2) / (|K'_1|_F |K'_2|_F) of centred kernels, in [0, 1].

    Source: Kornblith et al. 2019, Similarity of Neural Network Representations Revisited, arXiv 1905.00414,
    section 3; without change by a factor in either kernel. What is constant over the batch has a CKA of 0.
    """
    first, second = centre(first), centre(second)
    squares = first.square().sum() * second.square().sum()
    return (first * second).sum() / squares.clamp_min(NOTHING).sqrt()


ESTIMATORS: Mapping[tuple[str, str], Dependence] = MappingProxyType(
    {
        ("hsic", "released"): released_hsic,
        ("hsic", "unbiased"): unbiased_hsic,
        ("hsic", "cka"): cka,
        ("coco", "released"): released_coco,
        ("coco", "spectral"): spectral_coco,
    }
)
"""By measure and estimator."""
