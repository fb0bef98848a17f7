import math

import numpy as np
import pytest
from scipy import stats

from harness.metrics.statistics import draw_targets, mean_intervals, summarise


def generator(seed=0):
    return np.random.default_rng(seed)


def summary_of(targets, seed=0):
    (summary,) = summarise([targets], lambda n: draw_targets(n, generator(seed)))
    return summary


def interval_of(targets, seed=0):
    drawn = draw_targets(len(targets), generator(seed))
    (interval,) = mean_intervals(np.concatenate(targets)[None], list(map(len, targets)), drawn)
    return interval


def test_summary_of_all_images():
    targets = [np.array([1.0, 2.0]), np.array([3.0, 10.0])]
    summary = summary_of(targets)
    assert (summary.mean, summary.median, summary.max) == (4.0, 2.5, 10.0)
    assert summary.p95 == pytest.approx(8.95)  # 3 + 0.85 * 7
    assert 1.5 <= summary.interval.low < 4.0 < summary.interval.high <= 6.5


def test_undefined_values_are_left_out():
    summary = summary_of([np.array([np.nan, 2.0]), np.array([np.nan]), np.array([4.0])])
    assert (summary.mean, summary.max) == (3.0, 4.0)
    assert summary.interval is not None
    assert summary_of([np.array([np.nan]), np.array([])]) is None
    assert summary_of([]) is None


def test_one_target_has_no_interval():
    assert summary_of([np.array([1.0, 2.0, 3.0])]).interval is None


def test_equal_streams_give_equal_intervals():
    targets = [np.array([x]) for x in generator(3).normal(size=8)]
    assert interval_of(targets) == interval_of(targets)
    assert interval_of(targets, 1) != interval_of(targets, 2)


def test_targets_are_resampled_as_wholes():
    # within a target all images agree, so 50 images a target are worth no more than one
    means = generator(4).normal(size=6)
    single = interval_of([np.array([m]) for m in means])
    batches = interval_of([np.full(50, m) for m in means])
    assert batches.low == pytest.approx(single.low)
    assert batches.high == pytest.approx(single.high)


def test_an_interval_is_read_from_resampled_means():
    targets = [np.array([1.0, 4.0]), np.array([2.0]), np.array([7.0, 7.5, 9.0])]
    means = [np.concatenate([targets[k] for k in row]).mean() for row in draw_targets(3, generator())]
    reach = stats.t.ppf(0.975, 2) * math.sqrt(3 / 2)
    expected = np.quantile(means, [stats.norm.cdf(-reach), stats.norm.cdf(reach)])
    assert (interval_of(targets).low, interval_of(targets).high) == pytest.approx(tuple(expected))


def test_metrics_are_summarised_apart():
    draws = generator(7).normal(size=(4, 3, 2))
    draws[1, 2] = np.nan
    draws[2, 0, 1] = np.nan
    metrics = [list(values) for values in draws]
    together = summarise(metrics, lambda n: draw_targets(n, generator()))
    assert together == [summary_of(targets) for targets in metrics]
    assert len(set(together)) == 4


@pytest.mark.parametrize(("n", "least"), [(12, 0.91), (40, 0.92)])
def test_intervals_cover_the_true_mean(n, least):
    draws = generator(5).normal(size=(400, n))
    hits = 0
    for index, sample in enumerate(draws):
        interval = interval_of([np.array([value]) for value in sample], index)
        hits += interval.low <= 0.0 <= interval.high
    assert least <= hits / len(draws) <= 0.99
