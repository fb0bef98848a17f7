"""The benchmark's arithmetic against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from benchmarks.figures import (
    Pair,
    difference_median,
    flops,
    psnr_db,
    ratio,
    sgemm_flops,
    success_rate,
)


def test_a_ratio_is_of_sums_not_the_mean_of_ratios():
    found = ratio([Pair(1.0, 2.0), Pair(3.0, 18.0)])

    assert found.value == 5.0
    assert (found.low, found.high) == (2.0, 6.0)  # the two pairs alone are a resample each


def test_equal_pairs_leave_no_interval():
    assert ratio([Pair(0.5, 3.0)] * 7) == (6.0, 6.0, 6.0)


def test_a_ratios_interval_covers_the_true_one_about_as_often_as_it_says():
    generator = np.random.default_rng(3)
    inside = 0
    for _ in range(100):
        seconds = generator.lognormal(0, 0.2, size=(30, 2)) * (1.0, 4.0)
        found = ratio([Pair(*row) for row in seconds])
        inside += found.low <= 4.0 <= found.high
    assert 85 <= inside <= 100


def test_psnr_is_of_the_mean_squared_error():
    truth = torch.zeros(1, 3, 4, 4)

    assert psnr_db(truth + 0.1, truth) == pytest.approx(20.0)
    assert psnr_db(None, truth) == -math.inf


def test_success_is_20_db():
    assert success_rate([19.99, 20.0, -math.inf, 60.0]) == 0.5


def test_qualities_differ_by_the_median_of_absolute_differences():
    assert difference_median([10.0, 20.0, 30.0], [11.0, 20.0, 27.0]) == 1.0
    assert difference_median([-math.inf, 20.0], [-math.inf, 20.0]) == 0.0
    assert difference_median([-math.inf], [20.0]) == math.inf


def test_work_is_forward_passes():
    assert flops("difference", mflop=2.0, evaluations=3) == 5 * 2e6 * 3


def test_a_matrix_product_takes_time():
    assert 1e8 < sgemm_flops(1) < 1e13
