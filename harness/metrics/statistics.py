"""From one value per image to the numbers of a row, and how far to trust them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

Values = NDArray[np.float64]
RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """A metric over all images of a trial; `p95` and `max` are of its plain value, whichever way leaks more.

    Attributes:
        mean: Mean.
        median: Median.
        p95: 95th percentile, interpolated linearly.
        max: Largest value.
        interval: 95 % interval of the mean; None with fewer than two targets.
    """

    mean: float
    median: float
    p95: float
    max: float
    interval: Interval | None


def summarise(targets: Sequence[Values], generator: np.random.Generator) -> Summary | None:
    """Summarise one array of values per target; NaN is left out, and None returned if nothing is left."""
    kept = [values[~np.isnan(values)] for values in targets]
    kept = [values for values in kept if len(values)]
    if not kept:
        return None
    pooled = np.concatenate(kept)
    return Summary(
        mean=float(pooled.mean()),
        median=float(np.median(pooled)),
        p95=float(np.percentile(pooled, 95)),
        max=float(pooled.max()),
        interval=mean_interval(kept, generator) if len(kept) > 1 else None,
    )


def mean_interval(targets: Sequence[Values], generator: np.random.Generator) -> Interval:
    """Return the expanded percentile bootstrap interval of the mean over all values.

    Targets are resampled as wholes, since images of one batch are reconstructed together. With few targets
    plain percentiles are too narrow; the expanded ones undo that to first order by reading the bootstrap
    distribution at the probabilities Phi(-+ sqrt(N / (N - 1)) t), t the Student quantile with N - 1 degrees
    of freedom (Hesterberg 2015, What Teachers Should Know about the Bootstrap, arXiv 1411.5279). It cannot
    reach beyond the smallest and largest target, so with N < 5 it covers less than it says.

    Args:
        targets: N >= 2 non-empty arrays.
        generator: Decides the resamples.
    """
    n = len(targets)
    sums = np.array([values.sum() for values in targets])
    counts = np.array([len(values) for values in targets])
    drawn = generator.integers(n, size=(RESAMPLES, n))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    quantile = t.ppf((1 + CONFIDENCE) / 2, n - 1) * (n / (n - 1)) ** 0.5
    low, high = np.quantile(means, [norm.cdf(-quantile), norm.cdf(quantile)])
    return Interval(float(low), float(high))
