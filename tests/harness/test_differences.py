from __future__ import annotations

import pytest

from harness.differences import differences
from harness.results import load

MATRIX = """
seeds: [0, 1]
matrix:
  defense: [none, {name: gaussian, noise_budget: 0.1}]
  attack: [{name: idlg, iterations: 2}, random_guess]
"""


def outcome(spec, *, png=b"png", image=None, **changed):
    return {
        "psnr_db": 20.0 + spec.seed,
        "lpips": None,
        "wall_s": 1.0,
        "device": "cpu",
        "rounds": [{"round": n, "accuracy": n / 2} for n in (0, 1)],
        "reconstructions": [
            {
                "target_id": "t0",
                "reconstruction_index": 0,
                "ssim": 0.5,
                "png": {"bytes": png, "path": None},
                **(image or {}),
            }
        ],
        "traces": [{"target_id": "t0", "iteration": n, "restart": 0, "best": 0.1} for n in (0, 1)],
        **changed,
    }


@pytest.fixture
def compared(store_experiment):
    """From two outcomes to what differs."""

    def compare(first, second, **options):
        folders = store_experiment(MATRIX, first, name="a"), store_experiment(MATRIX, second, name="b")
        return differences(*(load(folder, images=True) for folder in folders), **options)

    return compare


def test_equal_results_are_the_same_whatever_they_cost(compared):
    found = compared(outcome, lambda spec: outcome(spec, wall_s=9.0, device="cuda", attempts=2))
    assert found.same
    assert found.common == 8
    assert found.made == ("device",)


def test_trials_of_one_side_are_named(compared):
    found = compared(outcome, lambda spec: outcome(spec) if spec.seed else None)
    assert not found.same
    assert (found.common, len(found.only_first), found.only_second) == (4, 4, ())
    assert found.columns == ()


def test_numbers_differ_bit_for_bit_or_beyond_the_tolerance(compared):
    found = compared(outcome, lambda spec: outcome(spec, psnr_db=20.0 + spec.seed * 1.25))
    (column,) = found.columns
    assert (column.table, column.column, column.rows, column.largest) == ("trials", "psnr_db", 4, 0.25)
    assert compared(outcome, lambda spec: outcome(spec, psnr_db=20.0 + spec.seed * 1.25), tolerance=0.25).same


def test_a_missing_number_is_a_difference_whatever_the_tolerance(compared):
    found = compared(outcome, lambda spec: outcome(spec, lpips=0.5), tolerance=10)
    assert [(one.column, one.rows, one.largest) for one in found.columns] == [("lpips", 8, None)]


def test_statuses_differ(compared):
    def failing(spec):
        return {"status": "failed", "error": "no"} if spec.seed else outcome(spec)

    found = compared(outcome, failing)
    rows = {(one.table, one.column): one.rows for one in found.columns}
    assert rows["trials", "status"] == rows["trials", "psnr_db"] == 4
    assert rows["reconstructions", "(rows)"] == 4
    assert rows["traces", "(rows)"] == 8


def test_images_rounds_and_pictures_are_compared(compared):
    def other(spec):
        return outcome(spec, png=b"other", image={"ssim": 0.25}, rounds=[{"round": 0, "accuracy": 0.0}])

    rows = {(one.table, one.column): (one.rows, one.largest) for one in compared(outcome, other).columns}
    assert rows == {
        ("reconstructions", "ssim"): (8, 0.25),
        ("reconstructions", "png"): (8, None),
        ("rounds", "(rows)"): (4, None),
    }
    assert {one.column for one in compared(outcome, other, tolerance=0.25).columns} == {"(rows)"}


def test_a_column_that_one_side_never_had_differs_only_if_it_says_something(compared):
    def third_party(spec):
        return outcome(spec, reconstructions=(), rounds=(), traces=())

    assert compared(third_party, third_party).same


def test_recorded_infinities_are_equal(compared):
    def infinite(spec):
        return outcome(spec, psnr_db=float("inf"))

    assert compared(infinite, infinite).same
    assert not compared(infinite, outcome).same
