"""Budgets at equal cost, against interpolations worked out by hand."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from harness.analysis.iso_utility import Configuration, Curve, iso_utility, off_budget, size_of_test_part
from harness.analysis.labels import with_labels
from harness.analysis.uncertainty import Estimate
from harness.config.matrix import load_matrix
from harness.plan.planner import make_plan


def estimate(mean, half=0.001):
    return Estimate(mean, mean - half, mean + half, 5, 5, "student", 0.5)


def tried(*points, half=0.001, label="gaussian"):
    return [
        Configuration(label, budget, estimate(drop, half), estimate(leak, 0.05))
        for budget, drop, leak in points
    ]


GRID = ((0.01, 0.002, 0.6), (0.1, 0.02, 0.4), (1.0, 0.2, 0.1))


def curve(points=GRID, **options):
    half = options.pop("half", 0.001)
    return Curve("digits", "gaussian", tried(*points, half=half), none=estimate(0.7), off=0.0, **options)


def test_between_two_budgets_the_answer_is_interpolated_and_says_so():
    found = curve().at(0.011)
    assert found.finding == "found"
    assert found.between == (0.01, 0.1)
    # halfway from 0.002 to 0.02: geometrically halfway between the budgets, halfway between the leakages
    assert found.noise_budget == pytest.approx((0.01 * 0.1) ** 0.5)
    assert found.leakage.mean == pytest.approx(0.5)
    assert (found.leakage.low, found.leakage.high) == pytest.approx((0.45, 0.55))
    assert found.drop.mean == pytest.approx(0.011)
    # where the ends of the loss's interval (0.001 to each side) reach 0.011
    assert found.low == pytest.approx(0.01 * 10 ** ((0.011 - 0.003) / 0.018))
    assert found.high == pytest.approx(0.01 * 10 ** ((0.011 - 0.001) / 0.018))


def test_below_the_weakest_budget_the_other_end_is_no_defense_at_its_off_value():
    found = curve().at(0.0015)
    assert found.between == (0.0, 0.01)
    assert found.noise_budget == pytest.approx(0.01 * 0.75)  # linear, as 0 has no logarithm
    assert found.leakage.mean == pytest.approx(0.7 - 0.1 * 0.75)
    without = Curve("digits", "gaussian", tried(*GRID), none=estimate(0.7), off=None)
    assert without.at(0.0015).finding == "every budget costs more"


def test_a_budget_that_costs_exactly_that_much_is_not_interpolated():
    found = curve().at(0.02)
    assert (found.noise_budget, found.between, found.finding) == (0.1, None, "found")


def test_a_loss_that_no_budget_reaches_gives_the_one_that_leaks_least():
    found = curve().at(0.3)
    assert (found.finding, found.noise_budget, found.leakage.mean) == ("no budget costs that much", 1.0, 0.1)


def test_a_loss_within_the_noise_is_not_resolvable_and_says_what_would_be():
    found = curve(half=0.03, test_images=750).at(0.01)
    assert found.finding == "not resolvable with this data"
    # between none (known) and 0.01 ... 0.1: at 8/18 of the way all half-widths are 0.03
    assert found.test_images == 750 * 9
    assert curve(half=0.03, test_images=750).at(0.05).finding == "found"
    alone = Estimate(0.01, float("nan"), float("nan"), 1, 1, "none", float("nan"))
    single = Curve("d", "g", [Configuration("g", 1.0, alone, alone)], none=estimate(0.7), off=0.0)
    assert single.at(0.01).finding == "too few federations"


def test_configurations_that_others_beat_are_set_aside():
    worse = ((0.03, 0.03, 0.65),)  # costs more than 0.1 and leaks more
    assert curve((*GRID, *worse)).at(0.011) == curve().at(0.011)
    useless = Curve("d", "g", tried((1.0, 0.1, 0.9)), none=estimate(0.7), off=0.0)
    assert useless.at(0.05).finding == "no better than none"
    assert Curve("d", "g", []).at(0.05).finding == "no reference"


def test_configurations_with_other_options_are_not_interpolated():
    mixed = [*tried((0.01, 0.002, 0.6), label="one"), *tried((0.1, 0.02, 0.4), label="other")]
    found = Curve("d", "g", mixed, none=estimate(0.7), off=0.0).at(0.011)
    assert (found.label, found.noise_budget, found.between) == ("one", 0.01, None)


@pytest.fixture
def frame(tmp_path):
    """Rows of a small matrix with accuracies and leakages of our own."""
    path = tmp_path / "m.yaml"
    path.write_text(
        """
version: 1
seeds: [0, 1, 2]
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 1}
matrix:
  defense: [none, {name: gaussian, noise_budget: [0.01, 0.1]}]
  attack: [dlg, {name: inverting_gradients}]
"""
    )
    rows = []
    for trial in make_plan(load_matrix(path), {}).todo:
        spec = trial.spec
        strength = {0.0: 0, 0.01: 1, 0.1: 2}[spec.noise_budget]
        wobble = 0.001 * spec.seed
        rows.append(
            {
                "trial_id": trial.trial_id, "status": "complete", "spec": spec.canonical,
                "defense": spec.defense.name, "noise_budget": spec.noise_budget, "attack": spec.attack.name,
                "attacker": "static", "seed": spec.seed, "n_targets": 4,
                "federation_key": f"{spec.noise_budget}/{spec.seed}",
                "accuracy": 0.9 - 0.02 * strength - wobble * strength, "ssim": 0.7 - 0.2 * strength
                - (0.1 if spec.attack.name == "dlg" else 0), "floor_ssim": 0.1, "psnr_db": 20.0, "lpips": 0.1,
                "psnr_db_max": 30.0, "success_rate": 0.5, "floor_success_rate": 0.0,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def test_an_experiments_rows_give_the_curve(frame):
    (found,) = iso_utility(with_labels(frame), 0.03)
    # drops 0.021 and 0.042 (means over three seeds), the stronger attack's excesses 0.4 and 0.2
    share = (0.03 - 0.021) / 0.021
    assert (found.defense, found.finding) == ("gaussian", "found")
    assert found.noise_budget == pytest.approx(0.01 * 10**share)
    assert found.leakage.mean == pytest.approx(0.4 - 0.2 * share)


def test_configurations_under_fewer_seeds_do_not_count(frame):
    pruned = frame[(frame["noise_budget"] != 0.1) | (frame["seed"] == 0)]
    (found,) = iso_utility(with_labels(pruned.reset_index(drop=True)), 0.03)
    assert (found.finding, found.noise_budget) == ("no budget costs that much", 0.01)


def test_the_data_and_the_defense_are_read_from_the_spec(frame):
    spec = frame["spec"].iloc[-1]
    assert off_budget(spec) == 0.0
    from fl.data import DATASETS

    card = DATASETS.get("digits")
    assert size_of_test_part(spec) == card.describe(card.config(size=8)).images["test"]
    gone = json.loads(spec)
    gone["data"]["name"] = gone["defense"]["name"] = "gone"
    assert size_of_test_part(json.dumps(gone)) is None
    assert off_budget(json.dumps(gone)) is None
