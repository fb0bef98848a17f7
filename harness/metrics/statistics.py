"""From one value per image to the numbers of a row, and how far to trust them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

Values = NDArray[np.float64]
Draws = NDArray[np.int64]
"""The targets of every resample, `RESAMPLES x N`."""
Draw = Callable[[int], Draws]
"""Resamples N targets: equal N, equal resamples."""
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


def summarise(metrics: Sequence[Sequence[Values]], draw: Draw) -> list[Summary | None]:
    """Summarise metrics, each given as one array of values per target.

    NaN is left out; a metric of which nothing is left has no summary.

    Args:
        metrics: By metric, by target, the values.
        draw: Decides the resamples.
    """
    kept = [[left for values in targets if len(left := values[~np.isnan(values)])] for targets in metrics]
    alike: dict[tuple[int, ...], list[int]] = {}
    for index, targets in enumerate(kept):
        alike.setdefault(tuple(map(len, targets)), []).append(index)
    summaries: list[Summary | None] = [None] * len(kept)
    for counts, indices in alike.items():
        if counts:
            pooled = np.array([np.concatenate(kept[index]) for index in indices])
            for index, summary in zip(indices, _summaries(pooled, counts, draw), strict=True):
                summaries[index] = summary
    return summaries


def _summaries(pooled: Values, counts: tuple[int, ...], draw: Draw) -> Iterator[Summary]:
    """Summarise metrics (`m x k`) of which every target has equally many values."""
    few = len(counts) < 2
    intervals = [None] * len(pooled) if few else mean_intervals(pooled, counts, draw(len(counts)))
    medians, p95 = np.median(pooled, axis=1), np.percentile(pooled, 95, axis=1)
    columns = zip(pooled.mean(1), medians, p95, pooled.max(1), intervals, strict=True)
    for mean, median, high, most, interval in columns:
        yield Summary(float(mean), float(median), float(high), float(most), interval)


def mean_intervals(pooled: Values, counts: Sequence[int], drawn: Draws) -> list[Interval]:
    """Return expanded percentile bootstrap intervals of the means of all values.

    Targets are resampled as wholes, since images of one batch are reconstructed together. With few targets
    plain percentiles are too narrow; the expanded ones undo that to first order by reading the bootstrap
    distribution at the probabilities Phi(-+ sqrt(N / (N - 1)) t), t the Student quantile with N - 1 degrees
    of freedom (Hesterberg 2015, What Teachers Should Know about the Bootstrap, arXiv 1411.5279). It cannot
    reach beyond the smallest and largest target, so with N < 5 it covers less than it says.

    Args:
        pooled: By metric, the values of all N >= 2 targets, `m x k`.
        counts: How many of the k each target has.
        drawn: The targets of every resample.
    """
    starts = np.cumsum([0, *counts[:-1]])
    sums, sizes = np.add.reduceat(pooled, starts, axis=1), np.array(counts)
    totals = sum(sums[:, column] for column in drawn.T)  # m x RESAMPLES
    means = totals / sizes[drawn].sum(1)
    low, high = np.quantile(means, expanded_probabilities(len(counts)), axis=1)
    return [Interval(float(one), float(other)) for one, other in zip(low, high, strict=True)]


@lru_cache(maxsize=64)
def expanded_probabilities(n: int) -> tuple[float, float]:
    """Return where the bootstrap distribution over n >= 2 targets is read for its 95 % interval."""
    quantile = t.ppf((1 + CONFIDENCE) / 2, n - 1) * (n / (n - 1)) ** 0.5
    return float(norm.cdf(-quantile)), float(norm.cdf(quantile))


def draw_targets(n: int, generator: np.random.Generator) -> Draws:
    """Return which of n targets make each of `RESAMPLES` resamples."""
    return generator.integers(n, size=(RESAMPLES, n))
