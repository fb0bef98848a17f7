import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from harness.analysis.uncertainty import Estimate, clustered_mean, holm, verdict


def clustered_draws(generator, clusters):
    """Three or so values of each of some clusters, whose own means differ; the true mean is 0."""
    values, names = [], []
    for cluster in range(clusters):
        own = generator.normal()
        for _ in range(generator.integers(2, 5)):
            values.append(own + generator.normal())
            names.append(cluster)
    return values, names


@pytest.mark.parametrize("clusters", [3, 5, 7, 12, 25])
def test_intervals_cover_the_true_mean(clusters):
    generator = np.random.default_rng(clusters)
    found = [clustered_mean(*clustered_draws(generator, clusters)) for _ in range(500)]
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.915 <= covered <= 0.985
    rejected = np.mean([one.p_value < 0.05 for one in found])
    assert 0.015 <= rejected <= 0.085


def test_intervals_that_ignore_clusters_do_not_cover():
    generator = np.random.default_rng(1)
    covered = []
    for _ in range(300):
        values, names = clustered_draws(generator, 7)
        found = clustered_mean(values, list(range(len(names))))
        covered.append(found.low <= 0 <= found.high)
    assert np.mean(covered) < 0.9


def test_few_equal_clusters_are_student():
    values = np.array([[1.0, 3.0], [2.0, 6.0], [9.0, 9.0]])
    found = clustered_mean(values.ravel(), ["a", "a", "b", "b", "c", "c"])
    means = values.mean(1)
    expected = ttest_1samp(means, 0.0)
    interval = expected.confidence_interval(0.95)
    assert found.method == "student"
    assert (found.mean, found.values, found.clusters) == (means.mean(), 6, 3)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_value == pytest.approx(expected.pvalue)


def test_one_cluster_or_none_has_no_interval():
    one = clustered_mean([1.0, 2.0], ["a", "a"])
    assert (one.mean, one.method, one.known) == (1.5, "none", False)
    assert math.isnan(one.low)
    assert math.isnan(one.p_value)
    nothing = clustered_mean([np.nan], ["a"])
    assert math.isnan(nothing.mean)
    assert nothing.values == 0


def test_undefined_values_and_their_clusters_are_left_out():
    found = clustered_mean([1.0, np.nan, 3.0, np.nan], ["a", "a", "b", "c"])
    assert (found.mean, found.values, found.clusters) == (2.0, 2, 2)


def test_equal_values_give_equal_intervals():
    generator = np.random.default_rng(2)
    values, names = clustered_draws(generator, 9)
    assert clustered_mean(values, names) == clustered_mean(values, names)


def test_clusters_and_values_go_together():
    with pytest.raises(ValueError, match="got 1 and 2"):
        clustered_mean([1.0, 2.0], ["a"])


def test_holm_by_hand():
    adjusted = holm([0.01, 0.04, 0.03, float("nan")])
    assert adjusted[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(adjusted[3])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def estimate(mean, method="student"):
    return Estimate(mean, mean - 1, mean + 1, 9, 3, method, 0.5)


def test_verdicts():
    assert verdict(estimate(-2.0), 0.01) == "leaks less"
    assert verdict(estimate(2.0), 0.01) == "leaks more"
    assert verdict(estimate(2.0), 0.01, leaks_more="lower") == "leaks less"
    assert verdict(estimate(-2.0), 0.2) == "not distinguishable"
    assert verdict(estimate(-2.0, "none"), float("nan")) == "too few federations"
    assert verdict(estimate(0.0), 0.0) == "not distinguishable"
