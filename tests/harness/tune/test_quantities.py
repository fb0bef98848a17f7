"""Objectives and constraints against sums worked out by hand."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from harness.tune.dominance import best, dominates, hopeless, losses
from harness.tune.quantities import Evidence, Unknown, excess_by_attack, leakage_of, quantity
from harness.tune.settings import LeakageSettings, Pruning

SSIM = LeakageSettings()


def row(seed, attack="a", attacker="static", **values):
    return {"seed": seed, "attack_key": attack, "attacker": attacker, **values}


def test_leakage_is_the_strongest_attacks_mean_beyond_the_floor():
    rows = [
        row(0, "a", ssim=0.9, floor_ssim=0.1),
        row(1, "a", ssim=0.1, floor_ssim=0.3),
        row(0, "b", ssim=0.5, floor_ssim=0.1),
        row(1, "b", ssim=0.8, floor_ssim=0.3),
        row(0, "b", "adaptive", ssim=0.6, floor_ssim=0.1),
        row(1, "b", "adaptive", ssim=0.9, floor_ssim=0.3),
    ]
    # a: (0.8 - 0.2) / 2 = 0.3; b: (0.4 + 0.5) / 2 = 0.45; b, adaptive: (0.5 + 0.6) / 2 = 0.55
    assert leakage_of(rows, SSIM) == pytest.approx(0.55)
    assert leakage_of(rows[:4], SSIM) == pytest.approx(0.45)
    assert leakage_of(rows, LeakageSettings(aggregate="mean")) == pytest.approx((0.3 + 0.45 + 0.55) / 3)
    assert leakage_of(rows, LeakageSettings(floor="none")) == pytest.approx(0.75)
    assert leakage_of([row(0, ssim=0.1, floor_ssim=0.3)], SSIM) == 0


def test_a_distance_leaks_where_it_is_below_the_floor():
    rows = [row(0, lpips=0.2, floor_lpips=0.7)]
    assert leakage_of(rows, LeakageSettings(metric="lpips")) == pytest.approx(0.5)
    unknown = leakage_of([row(0, lpips=None, floor_lpips=None)], LeakageSettings(metric="lpips"))
    assert unknown == Unknown("lpips is null in every row")


def test_models_leak_beyond_the_floor_that_was_run_with_them():
    def of(name, seed, value, key="a"):
        return {**row(seed, key, attack_top1=value, knn_distance=40 - 20 * value), "attack": name}

    rows = [of("gmi", 0, 0.5), of("gmi", 1, 0.75), of("vmi", 0, 0.25, "b"), of("vmi", 1, 0.5, "b")]
    low = [of("random_prior", 0, 0.125, "f"), of("random_prior", 1, 0.25, "f")]
    high = [of("random_prior", 0, 0.25, "g"), of("random_prior", 1, 0.125, "g")]
    top1 = LeakageSettings(metric="attack_top1")
    assert leakage_of([*rows, *low], top1) == pytest.approx((0.375 + 0.5) / 2)
    assert leakage_of([*rows, *low, *high], top1) == pytest.approx((0.25 + 0.5) / 2)
    mean = LeakageSettings(metric="attack_top1", aggregate="mean")
    assert leakage_of([*rows, *low], mean) == pytest.approx(((0.375 + 0.5) / 2 + (0.125 + 0.25) / 2) / 2)
    assert leakage_of(rows, LeakageSettings(metric="attack_top1", floor="none")) == pytest.approx(0.625)
    distance = LeakageSettings(metric="knn_distance")
    assert leakage_of([*rows, *low], distance) == pytest.approx(20 * (0.375 + 0.5) / 2)
    assert excess_by_attack(rows, top1, beside=low) == excess_by_attack([*rows, *low], top1)
    assert "random_prior" in leakage_of(rows, top1).reason


def test_utility_is_a_mean_over_seeds_and_its_drop_is_paired():
    mine = [row(0, accuracy=0.8), row(0, "b", accuracy=0.8), row(1, accuracy=0.6)]
    none = [row(0, accuracy=0.9), row(1, accuracy=0.65), row(2, accuracy=0.1)]
    evidence = Evidence(mine, none)
    assert quantity("accuracy", evidence, SSIM) == pytest.approx(0.7)
    assert quantity("accuracy_drop", evidence, SSIM) == pytest.approx((0.1 + 0.05) / 2)
    assert isinstance(quantity("accuracy_drop", Evidence(mine, none[:1]), SSIM), Unknown)
    assert isinstance(quantity("auroc", evidence, SSIM), Unknown)


def test_epsilon_is_the_largest_and_infinite_without_a_guarantee():
    rows = [row(0, epsilon=2.0), row(1, epsilon=3.0)]
    assert quantity("epsilon", Evidence(rows, []), SSIM) == 3
    assert quantity("epsilon", Evidence([*rows, row(2, epsilon=None)], []), SSIM) == math.inf


def test_seconds_are_per_round_and_may_be_missing():
    rows = [
        row(0, federation_rounds=4, federation_wall_s=8.0),
        row(0, "b", federation_rounds=4, federation_wall_s=None),
        row(1, federation_rounds=4, federation_wall_s=16.0),
    ]
    assert quantity("seconds_per_round", Evidence(rows, []), SSIM) == pytest.approx(3)
    assert isinstance(quantity("seconds_per_round", Evidence(rows[1:2], []), SSIM), Unknown)


def test_the_front_is_what_no_other_dominates():
    draw = random.Random(0)
    points = {i: (draw.randrange(6), draw.randrange(6), draw.randrange(6)) for i in range(60)}

    def beaten(own):
        return any(all(a <= b for a, b in zip(o, own, strict=True)) and o != own for o in points.values())

    assert best(points) == [i for i, own in points.items() if not beaten(own)]
    for one, other in itertools.product(points.values(), repeat=2):
        assert not (dominates(one, other) and dominates(other, one))
    assert losses((0.9, 0.2), ["maximize", "minimize"]) == (-0.9, 0.2)


def test_an_optuna_trial_ends_early_if_its_optimistic_bound_is_beaten():
    others = [(0.0, 1.0), (1.0, 0.0), (0.5, 0.5)]  # extents 1 and 1
    rule = Pruning(margin=0.1, startup=3)
    assert hopeless((0.61, 0.61), others, rule)  # bound (0.51, 0.51): beaten by the third
    assert not hopeless((0.59, 0.61), others, rule)  # bound (0.49, 0.51)
    assert not hopeless((0.61, 0.61), others, Pruning(margin=0.1, startup=4))
    assert not hopeless((0.61, 0.61), others, Pruning(margin=0.2, startup=3))
    assert hopeless((2.0,), [(1.0,), (0.0,)], Pruning(margin=0, startup=2))
