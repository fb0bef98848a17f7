"""Results of every schema version stay readable and can be gone on with.

The folders `assets/v<version>` were written by `assets/freeze.py` when the version was current. They must
never be written again: whoever bumps `SCHEMA_VERSION` freezes a new folder and adds its expectations here.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from harness.results import load
from harness.store.experiment import Experiment
from harness.store.schema import SCHEMA_VERSION, TABLES

ASSETS = Path(__file__).parent / "assets"
VERSIONS = [1]


@pytest.fixture(params=VERSIONS)
def frozen(request):
    return ASSETS / f"v{request.param}"


def test_the_present_version_is_frozen():
    assert max(VERSIONS) == SCHEMA_VERSION


def test_frozen_results_load(frozen):
    results = load(frozen, images=True)
    trials = results.trials.set_index("trial_id")
    assert dict(trials.status) == {
        "complete-trial": "complete",
        "failed-trial": "failed",
        "skipped-trial": "not_applicable",
    }
    row = trials.loc["complete-trial"]
    assert (row.ssim, row.ssim_ci_low, row.psnr_db, row.accuracy) == (0.5, 0.25, 20.0, 0.75)
    assert (row.dataset, row.defense, row.noise_budget, row.seed) == ("digits", "gaussian", 0.001, 7)
    assert (row.attack_steps, row.gradient_evaluations, row.attempts) == (30, 60, 1)
    assert row.finished == pd.Timestamp("2026-11-21T06:00:00Z")
    assert pd.isna(row.lpips)
    assert trials.error["failed-trial"] == "ValueError: no"
    assert list(results.reconstructions.matched_index.fillna(-1)) == [1, -1]
    assert [results.picture(png).tolist() for png in results.reconstructions.png] == [[[0, 255]]] * 2
    assert list(results.rounds["round"]) == [0, 3]
    assert list(results.rounds.accuracy) == [0.0, 0.75]
    assert results.traces.objective.tolist() == ['{"gradient":0.5}']
    assert results.manifest["environment"] == {"python": "3.11"}


def test_frozen_results_can_be_gone_on_with(frozen, tmp_path, rows_of):
    shutil.copytree(frozen, tmp_path / "x")
    experiment = Experiment.open(
        tmp_path / "x", columns={"defense_sigma": "float"}, resolve=lambda spec: {"defense_sigma": 0.001}
    )
    with experiment.lock():
        experiment.recover()
        experiment.commit([rows_of("failed-trial"), rows_of("new", defense_sigma=0.5)])
    trials = pd.read_parquet(tmp_path / "x" / "trials").set_index("trial_id")
    assert dict(trials.status) == {
        "complete-trial": "complete",
        "failed-trial": "complete",
        "skipped-trial": "not_applicable",
        "new": "complete",
    }
    assert trials.defense_sigma["complete-trial"] == 0.001
    assert trials.attack_steps["complete-trial"] == 30
    assert trials.ssim["complete-trial"] == 0.5


def test_frozen_files_read_without_us(frozen):
    for table in TABLES:
        assert len(pd.read_parquet(frozen / table)) > 0
