import numpy as np
import pytest

from harness.metrics.statistics import mean_interval, summarise


def generator(seed=0):
    return np.random.default_rng(seed)


def test_summary_of_all_images():
    targets = [np.array([1.0, 2.0]), np.array([3.0, 10.0])]
    summary = summarise(targets, generator())
    assert (summary.mean, summary.median, summary.max) == (4.0, 2.5, 10.0)
    assert summary.p95 == pytest.approx(8.95)  # 3 + 0.85 * 7
    assert 1.5 <= summary.interval.low < 4.0 < summary.interval.high <= 6.5


def test_undefined_values_are_left_out():
    summary = summarise([np.array([np.nan, 2.0]), np.array([np.nan]), np.array([4.0])], generator())
    assert (summary.mean, summary.max) == (3.0, 4.0)
    assert summary.interval is not None
    assert summarise([np.array([np.nan]), np.array([])], generator()) is None
    assert summarise([], generator()) is None


def test_one_target_has_no_interval():
    assert summarise([np.array([1.0, 2.0, 3.0])], generator()).interval is None


def test_equal_streams_give_equal_intervals():
    targets = [np.array([x]) for x in generator(3).normal(size=8)]
    assert mean_interval(targets, generator()) == mean_interval(targets, generator())
    assert mean_interval(targets, generator(1)) != mean_interval(targets, generator(2))


def test_targets_are_resampled_as_wholes():
    # within a target all images agree, so 50 images a target are worth no more than one
    means = generator(4).normal(size=6)
    single = mean_interval([np.array([m]) for m in means], generator())
    batches = mean_interval([np.full(50, m) for m in means], generator())
    assert batches.low == pytest.approx(single.low)
    assert batches.high == pytest.approx(single.high)


@pytest.mark.parametrize(("n", "least"), [(12, 0.91), (40, 0.92)])
def test_intervals_cover_the_true_mean(n, least):
    draws = generator(5).normal(size=(400, n))
    hits = 0
    for index, sample in enumerate(draws):
        interval = mean_interval([np.array([value]) for value in sample], generator(index))
        hits += interval.low <= 0.0 <= interval.high
    assert least <= hits / len(draws) <= 0.99
