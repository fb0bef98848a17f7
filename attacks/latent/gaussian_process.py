"""Exact Gaussian-process regression: constant mean, scaled Matern-5/2 kernel with a length per dimension.

Source: Rasmussen and Williams 2006, chapters 2 and 5; bounds and first values of the hyperparameters are
those of TuRBO (Eriksson et al. 2019, arXiv 1910.01739, supplement).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

STEPS, LR = 50, 0.1
"""Adam on the marginal likelihood."""

FEATURES = 1024
"""Random features that stand for the prior in `GaussianProcess.draw`."""

_SMOOTHNESS = 5
"""Twice nu."""


class Interval(NamedTuple):
    """Where a hyperparameter lies, and where its fit begins."""

    low: float
    high: float
    first: float

    def raw(self) -> float:
        """Return the unconstrained number behind the first value."""
        share = (self.first - self.low) / (self.high - self.low)
        return math.log(share / (1 - share))

    def value(self, raw: Tensor) -> Tensor:
        """Return the value behind an unconstrained number."""
        value: Tensor = self.low + (self.high - self.low) * raw.sigmoid()
        return value


LENGTHS = Interval(5e-3, 2.0, 0.5)
SCALE = Interval(0.05, 20.0, 1.0)
NOISE = Interval(5e-4, 0.2, 5e-3)


class Kernel(NamedTuple):
    """Hyperparameters.

    Attributes:
        mean: Scalar.
        scale: The variance of the function, a scalar.
        lengths: In which the function changes, `D`.
        noise: Variance of the noise on observations, a scalar.
    """

    mean: Tensor
    scale: Tensor
    lengths: Tensor
    noise: Tensor

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the covariance of the function at `n x D` and `m x D` points, `n x m`."""
        left, right = left / self.lengths, right / self.lengths
        squares = left.square().sum(1, keepdim=True) + right.square().sum(1) - 2 * left @ right.T
        distances = (_SMOOTHNESS * squares.clamp_min(0) + 1e-20).sqrt()
        covariance: Tensor = self.scale * (1 + distances + distances.square() / 3) * (-distances).exp()
        return covariance

    def factor(self, points: Tensor) -> Tensor:
        """Return the lower Cholesky factor of the observations' covariance, `n x n`."""
        noise = self.noise * torch.eye(len(points), dtype=points.dtype, device=points.device)
        factor: Tensor = torch.linalg.cholesky(self.between(points, points) + noise)
        return factor


class GaussianProcess(NamedTuple):
    """A process that has seen observations.

    Attributes:
        kernel: Its hyperparameters.
        points: `n x D`.
        values: What was observed there, `n`.
    """

    kernel: Kernel
    points: Tensor
    values: Tensor

    def draw(self, points: Tensor, functions: int, stream: torch.Generator) -> Tensor:
        """Return functions drawn from the posterior at points `m x D`, `functions x m`.

        A function of the prior, made of random Fourier features (Rahimi and Recht 2007), is moved by what the
        observations, with noise of its own, say beyond it: Wilson et al. 2020, arXiv 2002.09309, equation 7.
        The cost is linear in m, where a draw by a Cholesky factor is cubic.
        """
        kernel, seen = self.kernel, self.points
        prior = _prior(kernel, torch.cat([points, seen]), functions, stream)
        there, here = prior[:, : len(points)], prior[:, len(points) :]
        noise = kernel.noise.sqrt() * _normal((functions, len(seen)), stream, like=seen)
        beyond = (self.values - kernel.mean - here - noise).T
        weights = torch.cholesky_solve(beyond, kernel.factor(seen))
        drawn: Tensor = kernel.mean + there + (kernel.between(points, seen) @ weights).T
        return drawn


def fit(points: Tensor, values: Tensor) -> GaussianProcess:
    """Return the process whose hyperparameters Adam finds most likely.

    Args:
        points: `n x D` in [0, 1].
        values: Standardised, `n`.
    """
    lengths = [LENGTHS.raw()] * points.shape[1]
    raw = [torch.tensor(v, dtype=points.dtype, device=points.device) for v in (SCALE.raw(), NOISE.raw(), 0.0)]
    raw.append(torch.tensor(lengths, dtype=points.dtype, device=points.device))
    for each in raw:
        each.requires_grad_()
    optimizer = torch.optim.Adam(raw, lr=LR)
    for _ in range(STEPS):
        with torch.enable_grad():
            loss = _unlikelihood(_kernel(raw), points, values)
        for each, slope in zip(raw, torch.autograd.grad(loss, raw), strict=True):
            each.grad = slope
        optimizer.step()
    with torch.no_grad():
        return GaussianProcess(_kernel(raw), points, values)


def _kernel(raw: list[Tensor]) -> Kernel:
    scale, noise, mean, lengths = raw
    return Kernel(mean.clone(), SCALE.value(scale), LENGTHS.value(lengths), NOISE.value(noise))


def _unlikelihood(kernel: Kernel, points: Tensor, values: Tensor) -> Tensor:
    """Return minus the log marginal likelihood, up to a constant, divided by n."""
    factor = kernel.factor(points)
    whitened = torch.linalg.solve_triangular(factor, (values - kernel.mean).unsqueeze(1), upper=False)
    loss: Tensor = (whitened.square().sum() / 2 + factor.diagonal().log().sum()) / len(points)
    return loss


def _prior(kernel: Kernel, points: Tensor, functions: int, stream: torch.Generator) -> Tensor:
    """Return functions of the prior less its mean, `functions x n`.

    The kernel's spectrum is a multivariate t distribution with 2 nu degrees of freedom.
    """
    normal = _normal((FEATURES, points.shape[1]), stream, like=points)
    chi_squares = _normal((FEATURES, _SMOOTHNESS), stream, like=points).square().sum(1, keepdim=True)
    frequencies = normal * (_SMOOTHNESS / chi_squares).sqrt() / kernel.lengths
    phases = 2 * math.pi * torch.rand(FEATURES, generator=stream, dtype=torch.float64).to(points)
    waves = (2 * kernel.scale / FEATURES).sqrt() * (points @ frequencies.T + phases).cos()
    return _normal((functions, FEATURES), stream, like=points) @ waves.T


def _normal(shape: tuple[int, int], stream: torch.Generator, *, like: Tensor) -> Tensor:
    return torch.randn(shape, generator=stream, dtype=torch.float64).to(like)
