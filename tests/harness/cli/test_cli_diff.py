"""`bench diff`: two runs of one matrix."""

from __future__ import annotations

import shutil

import pytest

from harness.store.experiment import Experiment, TrialRows

MATRIX = """
matrix:
  attack: [{name: idlg, iterations: 2}, random_guess]
"""


@pytest.fixture
def folders(store_experiment, tmp_path):
    """An experiment and a copy of it."""
    first = store_experiment(MATRIX, lambda spec: {"psnr_db": 20.0, "wall_s": 1.0})
    shutil.copytree(first, tmp_path / "copy")
    return first, tmp_path / "copy"


def change(folder, **columns):
    """Replace a trial's row; return its id."""
    experiment = Experiment.open(folder)
    trial_id = sorted(experiment.statuses())[0]
    with experiment.lock():
        experiment.recover()
        spec = experiment.row(trial_id)["spec"]
        experiment.commit([TrialRows({"trial_id": trial_id, "status": "complete", "spec": spec, **columns})])
    return trial_id


def test_equal_experiments_exit_with_0(bench, folders):
    outcome = bench("diff", *folders)
    assert outcome.code == 0
    assert "2 trials in both" in outcome.out
    assert outcome.out.endswith("the same\n")


def test_different_experiments_exit_with_1_and_say_where(bench, folders):
    trial_id = change(folders[1], psnr_db=20.5)
    outcome = bench("diff", *folders, "--json")
    assert outcome.code == 1
    columns = {one["column"]: one for one in outcome.json["columns"]}
    assert columns["psnr_db"] == {
        "table": "trials",
        "column": "psnr_db",
        "rows": 1,
        "largest": 0.5,
        "first": trial_id,
    }
    text = bench("diff", *folders).out
    assert "psnr_db" in text
    assert text.endswith("different\n")


@pytest.mark.parametrize("arguments", [("--tolerance", "nan"), ("--tolerance", "-1"), ("--tolerance", "x")])
def test_a_tolerance_is_a_number(bench, folders, arguments):
    assert bench("diff", *folders, *arguments).code == 2


def test_a_folder_without_results_is_an_error(bench, folders, tmp_path):
    outcome = bench("diff", folders[0], tmp_path)
    assert outcome.code == 2
    assert "expected an experiment's results" in outcome.err
