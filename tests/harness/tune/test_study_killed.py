"""A driver that is killed at any moment loses no Optuna trial and tells none twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

ROOT = Path(__file__).parents[3]
STUDY = """
attacks: [{name: idlg, iterations: 1}]
attackers: [static, adaptive]
space:
  gaussian: {noise_budget: {float: [1e-4, 1], log: true}}
  pruning: {ratio: {float: [0.1, 0.9]}}
objectives: {accuracy: maximize, leakage: minimize}
trials: 8
parallel: 3
"""


def start(path, results):
    command = [sys.executable, "-c", "from harness.cli.main import main; main()", "tune", str(path)]
    options = ["--results", str(results), "--executor", "inline", "--progress", "none"]
    return subprocess.Popen(
        [*command, *options], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_a_study_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    run, write_study, tmp_path, *, journal, rows, folder
):
    path, draw, kills = write_study(STUDY), random.Random(0), 0
    log = folder / "journal.log"
    while True:
        driver = start(path, tmp_path / "results")
        if kills < 4:
            size = log.stat().st_size if log.exists() else 0
            grown = size + draw.randrange(200, 3000)
            while driver.poll() is None and (not log.exists() or log.stat().st_size < grown):
                time.sleep(0.002)
            if driver.poll() is None:
                driver.send_signal(signal.SIGKILL)
                kills += 1
        _, errors = driver.communicate(timeout=120)
        if driver.returncode != -signal.SIGKILL:
            break
    assert driver.returncode == 0, errors.decode()
    assert kills
    run(STUDY, results="whole")

    study, whole = journal(folder), journal(tmp_path / "whole" / "small")
    assert [trial.number for trial in study.trials] == list(range(8))
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    for one, other in zip(study.trials, whole.trials, strict=True):
        assert (one.params, one.values) == (other.params, other.values)
        assert one.user_attrs == other.user_attrs
    table = rows()
    assert table["trial_id"].is_unique
    assert len(table) == 2 + 8 * 4
    assert set(table["status"]) == {"complete"}
