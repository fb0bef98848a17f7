import math

import pytest
from scipy.stats import ttest_1samp

from harness.analysis.labels import with_labels
from harness.analysis.leakage import attacked, leaks, utilities, worst
from harness.analysis.measures import MEASURES
from harness.analysis.uncertainty import holm
from harness.results import load

SEEDS = range(7)
MATRIX = """
seeds: [0, 1, 2, 3, 4, 5, 6]
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 6, batch_size: 1}
  targets: 4
matrix:
  defense: [none, {name: gaussian, noise_budget: [0.001, 0.01]}, {name: pruning, noise_budget: 0.5}]
  attack: [{name: idlg, iterations: 2}, random_guess]
"""
EXCESS = {("none", 0.0): 0.6, ("gaussian", 0.001): 0.55, ("gaussian", 0.01): 0.0, ("pruning", 0.5): 0.6}


def wobble(seed, scale=0.01):
    """Differs from seed to seed, and is 0 on average over `SEEDS`."""
    return scale * (seed - 3)


def usual(spec, **changed):
    ssim = 0.2 + EXCESS[spec.defense.name, spec.noise_budget] + wobble(spec.seed)
    return {
        "ssim": ssim,
        "floor_ssim": 0.2,
        "psnr_db": 40 * ssim,
        "floor_psnr_db": 8.0,
        "psnr_db_max": 50 * ssim,
        "success_rate": float(ssim > 0.5),
        "floor_success_rate": 0.0,
        "accuracy": 0.9 - spec.noise_budget + wobble(spec.seed, 0.001),
        **changed,
    }


@pytest.fixture
def labelled(store_experiment):
    """From what becomes of each trial to the experiment's labelled trials."""

    def label(outcome=usual, matrix=MATRIX):
        return with_labels(load(store_experiment(matrix, outcome), tables=()).trials)

    return label


def by_cell(found):
    return {(one.defense, one.noise_budget): one for one in found}


def test_excess_is_beyond_the_floor_with_its_interval_over_seeds(labelled):
    found = by_cell(leaks(labelled()))
    assert set(found) == set(EXCESS)
    for cell, one in found.items():
        assert one.excess.mean == pytest.approx(EXCESS[cell], abs=1e-12)
        assert one.excess.low < EXCESS[cell] < one.excess.high
        assert (one.excess.clusters, one.excess.method, one.trials, one.targets) == (7, "bootstrap", 7, 28)
        assert one.floor == pytest.approx(0.2)


def test_floors_are_not_attacks(labelled):
    rows = labelled()
    assert set(attacked(rows).attack) == {"idlg"}
    assert {one.attack for one in leaks(rows)} == {"idlg"}
    assert leaks(rows[rows.attack == "random_guess"]) == []


def test_defenses_come_after_none_by_name_and_budget(labelled):
    assert list(by_cell(leaks(labelled()))) == [
        ("none", 0.0),
        ("gaussian", 0.001),
        ("gaussian", 0.01),
        ("pruning", 0.5),
    ]


def test_differences_are_paired_by_seed(labelled):
    """The wobble of the seeds is common to both sides: it cancels, and a small difference shows."""

    def small(spec):
        own = 0.01 if spec.defense.name == "gaussian" else 0.0
        return usual(spec, ssim=0.8 - own + wobble(spec.seed, 0.05) + wobble(spec.seed % 3, 1e-4))

    found = by_cell(leaks(labelled(small)))
    one = found["gaussian", 0.001]
    assert one.difference.mean == pytest.approx(-0.01)
    assert one.difference.high < 0
    assert one.versus_none == "leaks less"
    assert one.excess.high - one.excess.low > 0.05
    assert found["none", 0.0].versus_none is found["none", 0.0].difference is None
    assert found["pruning", 0.5].versus_none == "not distinguishable"


def test_verdicts_are_adjusted_for_all_comparisons_of_a_setting(labelled):
    noise = {0: 0.9, 1: -0.9, 2: 0.8, 3: 1.1, 4: 1.2, 5: 1.0, 6: 0.9}

    def borderline(spec):
        own = 0.0 if spec.defense.name == "none" else noise[spec.seed] / 100
        return usual(spec, ssim=0.5 - own)

    p_value = ttest_1samp([-n / 100 for n in noise.values()], 0.0).pvalue
    assert 0.05 / 3 < p_value < 0.05
    assert min(holm([p_value] * 3)) > 0.05
    rows = labelled(borderline)
    found = by_cell(leaks(rows))
    assert {found[cell].versus_none for cell in EXCESS if cell[0] != "none"} == {"not distinguishable"}
    alone = rows[rows.defense.isin(["none", "pruning"])]
    assert by_cell(leaks(alone))["pruning", 0.5].versus_none == "leaks less"


def test_lpips_leaks_more_where_it_is_lower(labelled):
    def close(spec):
        near = 0.1 if spec.defense.name == "none" else 0.5
        return usual(spec, lpips=near + wobble(spec.seed), floor_lpips=0.6)

    found = by_cell(leaks(labelled(close), metric="lpips"))
    assert found["none", 0.0].excess.mean == pytest.approx(0.5)
    assert found["pruning", 0.5].excess.mean == pytest.approx(0.1)
    assert found["pruning", 0.5].versus_none == "leaks less"


def test_the_adaptive_attacker_is_compared_with_the_static_one_on_none(labelled):
    matrix = MATRIX.replace("matrix:", "matrix:\n  attacker: [static, adaptive]")
    rows = labelled(matrix=matrix)
    static_none = rows[(rows.defense != "none") | (rows.attacker == "static")]
    adaptive = [one for one in leaks(static_none) if one.attacker == "adaptive"]
    assert len(adaptive) == 3
    assert all(one.difference is not None for one in adaptive)


@pytest.mark.parametrize(
    ("ssim", "success", "expected"),
    [
        (lambda seed: 0.5 + wobble(seed), 0.0, "leakage shown"),
        (lambda seed: 0.2 + wobble(seed), 0.0, "no leakage shown"),
        (lambda seed: 0.1 + wobble(seed), 0.25, "some images leaked"),
        (lambda seed: 0.2 + wobble(seed, 0.2), 0.25, "some images leaked"),
        (lambda seed: None, None, "not measured"),
    ],
)
def test_findings(labelled, ssim, success, expected):
    rows = labelled(lambda spec: usual(spec, ssim=ssim(spec.seed), success_rate=success))
    assert {one.finding for one in leaks(rows)} == {expected}


def test_images_that_a_floor_reaches_too_are_not_leaked(labelled):
    rows = labelled(lambda spec: usual(spec, ssim=0.2, success_rate=0.25, floor_success_rate=0.25))
    assert {one.finding for one in leaks(rows)} == {"no leakage shown"}


def test_one_seed_has_no_interval_but_its_images_may_have_leaked(labelled):
    rows = labelled(matrix=MATRIX.replace("[0, 1, 2, 3, 4, 5, 6]", "[5]"))
    found = by_cell(leaks(rows))
    assert not any(one.excess.known for one in found.values())
    assert found["gaussian", 0.01].finding == "too few federations"
    assert found["none", 0.0].finding == "some images leaked"
    assert found["pruning", 0.5].versus_none == "too few federations"


def test_trials_that_did_not_complete_count_nowhere(labelled):
    def outcome(spec):
        if spec.seed in (0, 1):
            return {"status": ("failed", "not_applicable")[spec.seed], "error": "no"}
        return usual(spec)

    rows = labelled(outcome)
    assert {one.trials for one in leaks(rows)} == {5}
    assert {one.value.values for one in utilities(rows)} == {5}


def test_undefined_metrics_are_left_out(labelled):
    rows = labelled(lambda spec: usual(spec, psnr_db=None if spec.seed else 9.0))
    for one in leaks(rows):
        assert (one.metrics["psnr_db"].values, one.metrics["psnr_db"].mean) == (1, 9.0)
        assert math.isnan(one.metrics["lpips"].mean)


def test_intervals_stay_where_means_can_lie(labelled):
    matrix = MATRIX.replace("[0, 1, 2, 3, 4, 5, 6]", "[4, 5]")
    rows = labelled(
        lambda spec: usual(spec, ssim=spec.seed / 5, success_rate=spec.seed - 4.0, psnr_db=20.0 * spec.seed),
        matrix=matrix,
    )
    for one in leaks(rows):
        for name in ("ssim", "success_rate", "psnr_db"):
            low, high = MEASURES[name].low, MEASURES[name].high
            assert low <= one.metrics[name].low <= one.metrics[name].mean <= one.metrics[name].high <= high


def test_the_worst_attack_is_the_one_with_the_largest_known_excess(labelled):
    matrix = MATRIX.replace("{name: idlg, iterations: 2}", "dlg, idlg, inverting_gradients")
    ssim = {"dlg": None, "idlg": 0.3, "inverting_gradients": 0.4, "random_guess": 0.9}
    rows = labelled(lambda spec: usual(spec, ssim=ssim[spec.attack.name]), matrix=matrix)
    assert {one.attack for one in worst(leaks(rows)).values()} == {"inverting_gradients"}


def test_utilities_count_federations_once_and_pair_by_seed(labelled):
    found = by_cell(utilities(labelled()))
    assert set(found) == set(EXCESS)
    assert found["none", 0.0].drop is None
    for (defense, budget), one in found.items():
        assert (one.value.values, one.value.mean) == (7, pytest.approx(0.9 - budget))
        if defense != "none":
            assert one.drop.mean == pytest.approx(budget)
            assert one.drop.high - one.drop.low < 1e-9


def test_utilities_pair_whatever_else_trials_of_a_federation_observed(labelled):
    """`none` was observed in rounds 0 and 5, the defense in round 5 alone: they share the condition."""
    matrix = MATRIX.replace("matrix:", "matrix:\n  observe.round: [0, 5]")

    def outcome(spec):
        return usual(spec) if spec.defense.name == "none" or spec.observe.round == 5 else None

    found = by_cell(utilities(labelled(outcome, matrix)))
    assert found["pruning", 0.5].drop.values == 7
    assert found["pruning", 0.5].drop.mean == pytest.approx(0.5)


def test_settings_are_judged_apart(labelled):
    matrix = MATRIX.replace("matrix:", "matrix:\n  model: [{name: lenet, convs: 2}, {name: convnet}]")
    rows = labelled(
        lambda spec: usual(spec, accuracy=0.5 if spec.model.name == "convnet" else None), matrix=matrix
    )
    settings = {one.setting for one in leaks(rows)}
    assert len(settings) == 2
    assert {one.setting for one in utilities(rows)} == {
        one for one in settings if one.startswith("digits, c")
    }
