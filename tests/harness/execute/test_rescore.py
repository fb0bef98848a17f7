"""Scoring again needs no attack, and gives what a new run would."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from harness.cli.main import run as bench
from harness.config.matrix import load_matrix
from harness.differences import differences
from harness.execute import rescore as module
from harness.execute.rescore import NOT_KEPT, rescore
from harness.execute.session import RunRequest, inline, run_matrix
from harness.metrics import METRICS
from harness.metrics.networks import VGG16
from harness.metrics.pairs import Unavailable
from harness.metrics.perceptual import find_perceptual
from harness.results import load
from harness.store.experiment import Experiment

MATRIX = """
name: %s
defaults:
  data: {name: %s, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 1, batch_size: 2}
  targets: 2
matrix:
  defense: [none, {name: gaussian, sigma: 1.0e-2}]
  attack: [{name: inverting_gradients, iterations: 3}, random_guess]
"""
LATER = "ncc"


@pytest.fixture
def run(write_matrix, listener, tmp_path):
    """Run a small matrix and return the experiment's folder."""

    def call(name="small", data="digits", asks=""):
        matrix = load_matrix(write_matrix(MATRIX % (name, data) + asks, name))
        result = run_matrix(RunRequest(matrix, tmp_path / "results", inline), listener)
        assert result.exit_code == 0
        return tmp_path / "results" / name

    return call


@pytest.fixture
def run_without(run):
    """Run a small matrix while a metric is not installed."""

    def call(name):
        card = METRICS.get(name)
        METRICS.unregister(name)
        try:
            return run("without")
        finally:
            METRICS.register(card)

    return call


def the_same(one, other):
    found = differences(load(one, images=True), load(other, images=True))
    assert found.same, found.columns
    return True


def files(folder):
    return {path.name: path.read_bytes() for path in (folder / "trials").iterdir()}


def test_scoring_again_changes_no_bit(run):
    folder = run()
    before = files(folder)
    assert rescore(folder).lacking == 0
    again = rescore(folder, every=True)
    assert (again.complete, again.lacking, again.changed, again.failed) == (4, 4, 0, {})
    assert files(folder) == before


def test_a_later_metric_is_filled_in_as_a_new_run_would(run, run_without):
    folder = run_without(LATER)
    assert LATER not in pd.read_parquet(folder / "trials").columns
    before = load(folder, images=True)
    result = rescore(folder)
    assert (result.lacking, result.changed, result.failed) == (4, 4, {})
    assert load(folder).trials[LATER].notna().all()
    assert the_same(folder, run("whole"))
    after = load(folder, images=True)
    pd.testing.assert_frame_equal(
        after.traces.sort_values(["trial_id", "iteration"], ignore_index=True),
        before.traces.sort_values(["trial_id", "iteration"], ignore_index=True),
    )
    kept = ["trial_id", "wall_s", "finished", "device", "attempts", "accuracy"]
    pd.testing.assert_frame_equal(
        after.trials[kept].sort_values("trial_id", ignore_index=True),
        before.trials[kept].sort_values("trial_id", ignore_index=True),
    )
    assert rescore(folder).lacking == 0


@pytest.fixture
def lpips_vgg():
    """LPIPS on VGG-16, or the test is skipped."""
    found = find_perceptual(VGG16)
    if isinstance(found, Unavailable):
        pytest.skip(found.reason)


def test_a_metric_that_the_matrix_asks_for_later_is_filled_in(run, lpips_vgg, tmp_path):
    folder = run()
    before = load(folder).trials
    assert before["lpips_vgg"].isna().all()
    assert rescore(folder).lacking == 0
    assert run(asks="metrics: [lpips_vgg]\n") == folder  # nothing left to run, but asked for from now on
    assert (rescore(folder).changed, rescore(folder).lacking) == (4, 0)
    after = load(folder)
    assert after.trials["lpips_vgg"].notna().all()
    assert after.reconstructions["lpips_vgg"].notna().all()
    pd.testing.assert_series_equal(after.trials["psnr_db"], before["psnr_db"])
    shutil.rmtree(folder)
    run(asks="metrics: [lpips_vgg]\n")
    assert load(folder).trials["lpips_vgg"].tolist() == after.trials["lpips_vgg"].tolist()


def test_rows_of_an_earlier_version_are_brought_up_to_date(run, monkeypatch):
    folder = run()
    monkeypatch.setattr(module, "SCORE_VERSION", 1000)
    result = rescore(folder)
    assert (result.lacking, result.changed) == (4, 4)
    assert set(load(folder).trials["score_version"]) == {1000}
    assert rescore(folder).lacking == 0


def test_what_is_null_for_a_reason_lacks_nothing(run):
    trials = load(run()).trials
    assert trials["lpips"].isna().all()
    assert trials["label_accuracy"].isna().any()
    rows = [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in trials.to_dict("records")
    ]
    assert not any(module.lacks(row) for row in rows)
    assert all(module.lacks({**row, LATER: None}) for row in rows)


def test_reconstructions_that_are_gone_are_said_and_rows_stay(run_without):
    folder = run_without(LATER)
    shutil.rmtree(folder / "artifacts")
    outcome = rescore(folder)
    assert outcome.changed == 0
    assert outcome.failed == {NOT_KEPT: 4}
    assert bench(["score", str(folder)]) == 1
    kept = Experiment.open(folder).statuses()
    assert set(kept.values()) == {"complete"}
    assert load(folder).trials["psnr_db"].notna().all()


def test_reconstructions_of_private_data_are_kept_in_the_private_store(run, plugin):
    plugin("ward")
    folder = run("ward", "ward")
    images = load(folder).reconstructions
    assert len(images) == 16
    assert rescore(folder, every=True).changed == 0
    shutil.rmtree(folder / "private")
    assert sum(rescore(folder, every=True).failed.values()) == 4


def test_a_folder_without_an_experiment(tmp_path, capsys):
    assert bench(["score", str(tmp_path)]) == 2
    assert "expected an experiment's results" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
