"""How sure a mean over many trials is, and whether two defenses differ: never more than the data says.

Targets of one federation share a model, its training and its clients, so they are not independent: what is
resampled is the federation, with all its targets. Everything here is a function of the values alone; the
resamples come from a stream of their own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit

from fl.seeds import Streams

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
RESAMPLES = 2000
MANY = 6
"""Clusters from which on the bootstrap covers what it says (tests/harness/analysis/test_uncertainty.py)."""

Method = Literal["bootstrap", "student", "none"]
Verdict = Literal["leaks less", "leaks more", "not distinguishable", "too few federations"]


class Estimate(NamedTuple):
    """A mean and how sure it is.

    Attributes:
        mean: Over all values.
        low: Lower end of its 95 % interval; NaN where there is none.
        high: Upper end.
        values: How many values.
        clusters: How many clusters (federations) they come from.
        method: `bootstrap` over clusters, `student`: by the t distribution of few clusters' means, `none`:
            a single cluster says nothing of others.
        p_value: Two-sided, of a true mean of 0; NaN where there is no interval.
    """

    mean: float
    low: float
    high: float
    values: int
    clusters: int
    method: Method
    p_value: float

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return self.method != "none"

    def within(self, low: float, high: float) -> Estimate:
        """Return the estimate with its interval cut to where its mean can lie at all."""
        return self._replace(low=max(self.low, low), high=min(self.high, high)) if self.known else self


def clustered_mean(values: ArrayLike, clusters: Sequence[Hashable]) -> Estimate:
    """Return the mean of values, with an interval that takes clusters as wholes; NaN values are left out.

    With `MANY` clusters or more it is the expanded percentile bootstrap (Hesterberg 2015, arXiv 1411.5279,
    section 3.3): the bootstrap distribution's quantiles at Phi(-+ sqrt(k / (k - 1)) t), t the Student
    quantile with k - 1 degrees of freedom. With fewer, that cannot reach beyond the outermost cluster, and
    Student's interval with the linearised standard error of a ratio of sums takes its place (Cochran 1977,
    Sampling Techniques, section 6.4).

    Args:
        values: N numbers.
        clusters: N names of clusters.

    Raises:
        ValueError: If their numbers differ.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) != len(clusters):
        raise ValueError(f"expected as many clusters as values, got {len(clusters)} and {len(numbers)}")
    sums, counts = _by_cluster(numbers, clusters)
    k, total = len(sums), int(counts.sum())
    if not total:
        return Estimate(np.nan, np.nan, np.nan, 0, 0, "none", np.nan)
    mean = float(sums.sum() / total)
    if k < 2:
        return Estimate(mean, np.nan, np.nan, total, k, "none", np.nan)
    residuals = (sums - mean * counts) / counts.mean()
    error = float(np.sqrt((residuals**2).sum() / (k * (k - 1))))
    p_value = _p_value(mean, error, k - 1)
    if k >= MANY:
        low, high = _expanded_percentiles(sums, counts)
        return Estimate(mean, low, high, total, k, "bootstrap", p_value)
    reach = float(stdtrit(k - 1, (1 + CONFIDENCE) / 2)) * error
    return Estimate(mean, mean - reach, mean + reach, total, k, "student", p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for how many there are (Holm 1979); NaN is no test and stays NaN."""
    tested = sorted((p, i) for i, p in enumerate(p_values) if not np.isnan(p))
    adjusted = [float("nan")] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        adjusted[index] = highest
    return adjusted


def verdict(
    difference: Estimate, p_value: float, *, leaks_more: Literal["higher", "lower"] = "higher"
) -> Verdict:
    """Say in words what a paired difference (ours minus the other's) on the same targets shows.

    Args:
        difference: Of a leakage metric.
        p_value: Its p-value, adjusted where several are read together.
        leaks_more: Which way the metric means that more leaked.
    """
    if not difference.known:
        return "too few federations"
    if p_value > 1 - CONFIDENCE or difference.mean == 0:
        return "not distinguishable"
    return "leaks more" if (difference.mean > 0) == (leaks_more == "higher") else "leaks less"


def _by_cluster(
    values: NDArray[np.float64], clusters: Sequence[Hashable]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sums and counts of the values of each cluster that has any, in order of first appearance."""
    found: dict[Hashable, tuple[float, int]] = {}
    for value, cluster in zip(values.tolist(), clusters, strict=True):
        if not np.isnan(value):
            total, count = found.get(cluster, (0.0, 0))
            found[cluster] = (total + value, count + 1)
    pairs = np.array(list(found.values()), dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _expanded_percentiles(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> tuple[float, float]:
    k = len(sums)
    drawn = Streams(0).numpy("bootstrap").integers(k, size=(RESAMPLES, k))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    reach = float(stdtrit(k - 1, (1 + CONFIDENCE) / 2)) * (k / (k - 1)) ** 0.5
    low, high = np.quantile(means, [ndtr(-reach), ndtr(reach)])
    return float(low), float(high)


def _p_value(mean: float, error: float, freedom: int) -> float:
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(freedom, -abs(mean) / error))
