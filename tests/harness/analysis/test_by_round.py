"""Leakage by round against sums worked out by hand and SciPy's intervals."""

from __future__ import annotations

import itertools
import math

import pytest
from scipy.stats import ttest_1samp

from harness.analysis.by_round import against_floor, courses, later
from harness.analysis.labels import with_labels
from harness.analysis.leakage import leaks, worst
from harness.analysis.measures import MEASURES
from harness.results import load

UPDATES = """
seeds: [0, 1, 2]
matrix:
  attack: [{name: idlg, iterations: 2}, random_guess]
  observe.round: [0, 3, 5]
"""
OWN = {1: [0.3, 0.5, 0.4], 6: [0.7, 0.8, 0.9]}
"""Attack accuracy by round and seed."""
FLOOR = {1: [0.1, 0.15, 0.05], 6: [0.1, 0.2, 0.15]}


def inverted(spec):
    known = FLOOR if spec.attack.name == "random_prior" else OWN
    top1 = known[spec.observe.round][spec.seed]
    taken = 0.25 if spec.defense.name == "gaussian" and spec.attack.name == "gmi" else 0.0
    return {
        "attack_top1": top1 - taken,
        "ceiling_attack_top1": 0.99,
        "knn_distance": 50 - 20 * top1,
        "ceiling_knn_distance": 4.0,
        "pairwise_distance": 0.2,
        "accuracy": 0.95,
        "rounds": [{"round": n, "accuracy": n / 10 + spec.seed / 100} for n in range(7)],
    }


def recovered(spec):
    psnr_db = 30.0 - 4 * spec.observe.round + spec.seed
    return {"ssim": psnr_db / 40, "floor_ssim": 0.1, "psnr_db": psnr_db, "floor_psnr_db": 8.0}


@pytest.fixture
def experiment(store_experiment, inversions):
    """From a matrix and what becomes of each trial to labelled trials and the table of rounds."""

    numbers = itertools.count()

    def store(matrix=inversions, outcome=inverted):
        results = load(store_experiment(matrix, outcome, name=f"made{next(numbers)}"))
        return with_labels(results.trials), results.rounds

    return store


@pytest.fixture
def traced(experiment):
    return lambda *args, **options: courses(*experiment(*args), **options)


def student(values):
    """Return SciPy's mean and 95 % interval of values of different seeds."""
    found = ttest_1samp(values, 0.0).confidence_interval()
    return pytest.approx((sum(values) / len(values), found.low, found.high))


def ends(estimate):
    return (estimate.mean, estimate.low, estimate.high)


def test_a_round_has_mean_floor_and_ceiling_over_seeds(traced):
    none, gaussian = traced()
    assert [(one.defense, one.attack, one.told) for one in (none, gaussian)] == [
        ("none", "gmi", "attack_top1"),
        ("gaussian", "gmi", "attack_top1"),
    ]
    assert [at.round for at in none.rounds] == [1, 6]
    for at in none.rounds:
        level = at.levels["attack_top1"]
        assert at.trials == level.value.clusters == 3
        assert level.value.mean == pytest.approx(sum(OWN[at.round]) / 3)
        assert level.floor.mean == pytest.approx(sum(FLOOR[at.round]) / 3)
        assert level.ceiling.mean == pytest.approx(0.99)
    assert ends(none.rounds[0].levels["attack_top1"].value) == student(OWN[1])
    assert none.rounds[1].levels["attack_top1"].value.high == 1.0  # Student's would be 1.05


def test_the_floor_is_paired_by_seed_and_round(traced):
    none, gaussian = traced()
    for at in none.rounds:
        differences = [own - floor for own, floor in zip(OWN[at.round], FLOOR[at.round], strict=True)]
        assert ends(at.levels["attack_top1"].excess) == student(differences)
        # a distance leaks where it is below the floor's: 20 times the difference of accuracies
        assert ends(at.levels["knn_distance"].excess) == student([20 * each for each in differences])
    assert against_floor(none.rounds[1].levels["attack_top1"].excess) == "above the floor"
    assert against_floor(gaussian.rounds[0].levels["attack_top1"].excess) == "not told from the floor"


def test_the_last_round_is_compared_with_the_first_under_the_same_seed(traced):
    none, _ = traced()
    changes = [last - first for first, last in zip(OWN[1], OWN[6], strict=True)]
    assert ends(none.change["attack_top1"]) == student(changes)
    assert ends(none.change["knn_distance"]) == student([-20 * each for each in changes])
    for name in ("attack_top1", "knn_distance"):
        assert later(none.change[name], MEASURES[name]) == "leaks more later"
    assert set(none.change) == {"attack_top1", "knn_distance", "pairwise_distance"}
    assert later(none.change["pairwise_distance"], MEASURES["pairwise_distance"]) == "not distinguishable"


def test_only_seeds_that_have_both_rounds_tell_a_change(traced, inversions):
    def unfinished(spec):
        gone = spec.seed == 0 and spec.observe.round == 1 and spec.attack.name == "gmi"
        return {"status": "failed", "error": "no"} if gone else inverted(spec)

    none, _ = traced(inversions, unfinished)
    assert none.rounds[0].trials == 2
    low, high = ttest_1samp([0.8 - 0.5, 0.9 - 0.4], 0.0).confidence_interval()
    assert high > 1  # more than two shares can differ by
    assert ends(none.change["attack_top1"]) == pytest.approx((0.4, low, 1.0))


def test_utility_is_that_of_the_attacked_model(traced, inversions):
    none, _ = traced()
    assert [at.utility.mean for at in none.rounds] == pytest.approx([0.11, 0.61])
    unknown, _ = traced(inversions, lambda spec: {**inverted(spec), "rounds": ()})
    assert [at.utility for at in unknown.rounds] == [None, None]


def test_without_a_floor_or_a_second_seed_there_is_nothing_to_tell(traced, inversions):
    alone, *_ = traced(inversions.replace("[gmi, random_prior]", "[gmi]"))
    level = alone.rounds[0].levels["attack_top1"]
    assert level.value.mean == pytest.approx(0.4)
    assert math.isnan(level.floor.mean)
    assert against_floor(level.excess) == "no floor"
    single, *_ = traced(inversions.replace("[0, 1, 2]", "[1]"))
    assert against_floor(single.rounds[0].levels["attack_top1"].excess) == "too few federations"
    assert later(single.change["attack_top1"], MEASURES["attack_top1"]) == "too few federations"


def test_a_single_round_changes_nothing_and_one_of_updates_is_no_course(traced, inversions):
    once, _ = traced(inversions.replace("[1, 6]", "[6]"))
    assert [at.round for at in once.rounds] == [6]
    assert once.change == {}
    assert traced(UPDATES.replace("[0, 3, 5]", "[3]"), recovered) == []


def test_updates_are_followed_by_their_own_measures(traced):
    (course,) = traced(UPDATES, recovered)
    assert course.told == "ssim"
    assert [at.levels["psnr_db"].value.mean for at in course.rounds] == pytest.approx([31.0, 19.0, 11.0])
    assert course.change["psnr_db"].mean == pytest.approx(-20.0)
    assert course.rounds[2].levels["psnr_db"].excess.mean == pytest.approx(3.0)
    (other,) = traced(UPDATES, recovered, metric="psnr_db")
    assert other.told == "psnr_db"


def test_circumstances_are_followed_apart(traced, inversions):
    matrix = inversions.replace("matrix:", "matrix:\n  federation.local_epochs: [1, 2]")
    matrix = matrix.replace("batch_size: 4", "batch_size: 4, algorithm: fedavg")
    found = traced(matrix)
    assert {(one.circumstances, one.defense) for one in found} == {
        (f"local epochs {epochs}", defense) for epochs in (1, 2) for defense in ("none", "gaussian")
    }
    assert all(len(one.rounds) == 2 for one in found)


def test_the_summary_is_of_the_last_observed_round(experiment):
    labelled, _ = experiment()
    none, gaussian = leaks(labelled)
    differences = [own - floor for own, floor in zip(OWN[6], FLOOR[6], strict=True)]
    assert (none.metric, none.trials, none.finding) == ("attack_top1", 3, "leakage shown")
    assert ends(none.excess) == student(differences)
    assert none.metrics["attack_top1"].mean == pytest.approx(0.8)
    assert gaussian.difference.mean == pytest.approx(-0.25)
    assert gaussian.versus_none == "leaks less"
    distance, _ = leaks(labelled, metric="knn_distance")
    assert distance.excess.mean == pytest.approx(20 * sum(differences) / 3)
    assert leaks(labelled, metric="ssim")[0].metric == "attack_top1"


def test_floors_of_other_rounds_and_defenses_do_not_count(experiment, inversions):
    def uneven(spec):
        better = spec.defense.name == "gaussian" or spec.observe.round == 1
        return {**inverted(spec), "attack_top1": 0.9 if better else 0.3}

    labelled, _ = experiment(inversions, uneven)
    found = {leak.defense: leak for leak in leaks(labelled)}
    assert found["none"].floor == pytest.approx(0.3)
    assert found["gaussian"].floor == pytest.approx(0.9)
    assert found["none"].finding == "no leakage shown"


def test_of_several_floors_the_best_counts(experiment, inversions):
    matrix = inversions.replace(
        "random_prior]", "{name: random_prior, samples: 3}, {name: random_prior, samples: 4}]"
    )

    def two(spec):
        more = spec.attack.name == "random_prior" and spec.attack.config.samples == 4
        found = inverted(spec)
        return {**found, "attack_top1": found["attack_top1"] + 0.02 * more, "knn_distance": 9.0 - more}

    labelled, _ = experiment(matrix, two)
    assert leaks(labelled)[0].floor == pytest.approx(0.15 + 0.02)
    assert leaks(labelled, metric="knn_distance")[0].floor == pytest.approx(8.0)


def test_updates_and_models_of_one_federation_are_two_settings(experiment, inversions):
    apart = "{attack: {name: idlg, iterations: 2}, observe.kind: update, observe.round: 0}"
    matrix = f"{inversions}include: [{apart}]\n".replace("position: participant", "position: server")

    def either(spec):
        return recovered(spec) if spec.observe.kind == "update" else inverted(spec)

    labelled, _ = experiment(matrix, either)
    found = worst(leaks(labelled))
    assert {leak.setting: leak.metric for leak in found.values()} == {
        "digits, lenet": "ssim",
        "digits, lenet, model inversion": "attack_top1",
    }
