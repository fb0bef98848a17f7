"""Bayesian optimization in a trust region: TuRBO with one region.

Source: Eriksson, Pearce, Gardner, Turner and Poloczek 2019, Scalable Global Optimization via Local Bayesian
Optimization, arXiv 1910.01739, algorithm 1 and supplement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from attacks.latent.base import LatentSearch
from attacks.latent.gaussian_process import fit

if TYPE_CHECKING:
    from attacks.latent.gaussian_process import GaussianProcess

FIRST_SIDE, LEAST_SIDE, MOST_SIDE = 0.8, 0.5**7, 1.6
"""Of the region, in a box of side 1."""

SUCCESSES = 3
"""In a row, after which the region's side doubles."""

IMPROVEMENT = 1e-3
"""Share of the best value that a lower one must gain to count as a success."""

PERTURBED = 20
"""Coordinates in which a candidate differs from the best point, on average."""


@dataclass
class Region:
    """The trust region.

    Attributes:
        dimension: D.
        batch: Points at a time.
        side: Of the region, before it is stretched by the kernel's lengths.
        successes: In a row.
        failures: In a row.
    """

    dimension: int
    batch: int
    side: float = FIRST_SIDE
    successes: int = 0
    failures: int = 0

    @property
    def patience(self) -> int:
        """Failures in a row after which the side halves."""
        return math.ceil(max(4 / self.batch, self.dimension / self.batch))

    @property
    def collapsed(self) -> bool:
        """Whether it is too small to go on."""
        return self.side < LEAST_SIDE

    def tell(self, *, success: bool) -> None:
        """Take in whether a batch improved on the best value."""
        self.successes, self.failures = (self.successes + 1, 0) if success else (0, self.failures + 1)
        if self.successes == SUCCESSES:
            self.side, self.successes = min(2 * self.side, MOST_SIDE), 0
        elif self.failures == self.patience:
            self.side, self.failures = self.side / 2, 0


class Turbo(LatentSearch):
    """Batches by Thompson sampling from a Gaussian process, near the best point so far.

    It starts from a Latin hypercube, and again from another whenever its region has collapsed.

    Args:
        dimension: D.
        batch: Points at a time.
        initial: Points of a hypercube, at least 2.
        box: Entries of points are in [-box, box].
        stream: Of the draws.
        device: Where the Gaussian process computes, in double precision.
    """

    def __init__(
        self,
        dimension: int,
        batch: int,
        *,
        initial: int,
        box: float,
        stream: torch.Generator,
        device: torch.device,
    ) -> None:
        self._dimension, self._batch, self._initial, self._box = dimension, batch, initial, box
        self._stream, self._device = stream, device
        self._region: Region
        self._points: Tensor
        self._values: Tensor
        self._begin()

    def ask(self) -> Tensor:
        """Return a hypercube, or a batch."""
        asked = self._proposed() if len(self._values) else self._hypercube()
        self._asked = asked
        return ((2 * asked - 1) * self._box).float()

    def tell(self, values: Tensor, slopes: Tensor | None = None) -> None:
        """Take in a batch; change the region, or begin anew."""
        values = values.double()
        if len(self._values):
            best = float(self._values.min())
            self._region.tell(success=float(values.min()) < best - IMPROVEMENT * abs(best))
        self._points = torch.cat([self._points, self._asked])
        self._values = torch.cat([self._values, values])
        if self._region.collapsed:
            self._begin()

    def _begin(self) -> None:
        self._region = Region(self._dimension, self._batch)
        self._points = torch.empty(0, self._dimension, dtype=torch.float64)
        self._values = torch.empty(0, dtype=torch.float64)

    def _hypercube(self) -> Tensor:
        """Return one point in each of n slices of every dimension (McKay et al. 1979)."""
        shape = (self._initial, self._dimension)
        order = torch.rand(shape, generator=self._stream).argsort(0)
        return (order + torch.rand(shape, generator=self._stream, dtype=torch.float64)) / self._initial

    def _proposed(self) -> Tensor:
        values = self._values
        spread = values.std()
        standard = (values - values.median()) / (spread if spread > 0 else 1)
        process = fit(self._points.to(self._device), standard.to(self._device))
        candidates = self._candidates(process)
        with torch.no_grad():
            drawn = process.draw(candidates.to(self._device), self._batch, self._stream).cpu()
        return candidates[_lowest(drawn)]

    def _candidates(self, process: GaussianProcess) -> Tensor:
        """Return points of the region: the best one so far with some coordinates changed."""
        best = self._points[self._values.argmin()]
        lengths = process.kernel.lengths.cpu()
        stretch = lengths / lengths.log().mean().exp()
        low = (best - stretch * self._region.side / 2).clamp(0, 1)
        high = (best + stretch * self._region.side / 2).clamp(0, 1)
        number = min(100 * self._dimension, 5000)
        seed = int(torch.randint(2**31, (), generator=self._stream))
        spread = _sobol(number, self._dimension, seed)
        changed = torch.rand(spread.shape, generator=self._stream) <= PERTURBED / self._dimension
        one = torch.randint(self._dimension, (number,), generator=self._stream)
        changed[torch.arange(number), one] |= ~changed.any(1)
        return torch.where(changed, low + spread * (high - low), best)


def _sobol(number: int, dimension: int, seed: int) -> Tensor:
    """Return a scrambled sequence in [0, 1], `number x dimension`."""
    engine = SobolEngine(dimension, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    return engine.draw(number, dtype=torch.float64)


def _lowest(functions: Tensor) -> Tensor:
    """Return where each function, in turn, is lowest among `k x m` places that none before it has taken."""
    free = functions.clone()
    taken = []
    for row in free:
        taken.append(int(row.argmin()))
        free[:, taken[-1]] = math.inf
    return torch.tensor(taken)
