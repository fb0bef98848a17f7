"""Experiments whose specs are real and whose outcomes a test chooses."""

from __future__ import annotations

import textwrap

import pytest

from harness.config.matrix import load_matrix
from harness.execute import score
from harness.metrics.pairs import Unavailable
from harness.plan.columns import as_columns, flatten
from harness.plan.keys import federation_key
from harness.plan.planner import make_plan
from harness.store.experiment import Experiment, TrialRows

DEFAULTS = """
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 6, batch_size: 1}
  targets: 2
"""
INVERSIONS = """
seeds: [0, 1, 2]
defaults:
  data: {name: digits, size: 16}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 6, batch_size: 4}
  threat_model: {position: participant}
  observe: {kind: global_model}
  targets: 2
matrix:
  defense: [none, {name: gaussian, noise_budget: 0.1}]
  attack: [gmi, random_prior]
  observe.round: [1, 6]
"""


@pytest.fixture(autouse=True)
def _no_lpips(monkeypatch):
    """LPIPS has tests of its own; here it would only be downloaded and take time."""
    monkeypatch.setattr(score, "_perceptual", lambda: Unavailable("LPIPS is left out of these tests"))


@pytest.fixture(scope="session")
def inversions():
    """The text of a matrix that inverts the global models of two rounds."""
    return INVERSIONS


@pytest.fixture
def store_experiment(tmp_path):
    """From the text of a matrix and what becomes of each trial to the experiment's folder."""

    def store(text, outcome, *, name="made", manifest=None):
        """Store an experiment.

        Args:
            text: The matrix, without version and name; without `defaults:` of its own it gets small ones.
            outcome: From a spec to columns of `trials/`; `reconstructions`, `traces` and `rounds` are rows of
                those tables. None leaves the trial out.
            name: Of the experiment.
            manifest: Added to the manifest.
        """
        path = tmp_path / f"{name}.yaml"
        defaults = "" if "defaults:" in text else DEFAULTS
        path.write_text(f"version: 1\nname: {name}\n{defaults}{textwrap.dedent(text)}")
        plan = make_plan(load_matrix(path), {})
        experiment = Experiment.open(tmp_path / "results" / name, columns=plan.axis_columns)
        made = [rows(trial, dict(found), plan) for trial in plan.trials if (found := outcome(trial.spec))]
        with experiment.lock():
            experiment.begin({"name": name, "file": path.name, "matrix": {}, **(manifest or {})})
            experiment.commit(made)
        return tmp_path / "results" / name

    def rows(trial, found, plan):
        key = None if trial.spec.federation is None else federation_key(trial.spec)
        of = {table: found.pop(table, ()) for table in ("reconstructions", "traces", "rounds")}
        return TrialRows(
            {
                **as_columns(flatten(trial.spec), plan.axis_columns),
                "trial_id": trial.trial_id,
                "experiment": plan.matrix.name,
                "name": trial.name,
                "status": "complete",
                "spec": trial.spec.canonical,
                "federation_key": key,
                "n_targets": trial.spec.targets,
                **found,
            },
            [{"trial_id": trial.trial_id, **row} for row in of["reconstructions"]],
            [{"trial_id": trial.trial_id, **row} for row in of["traces"]],
            [{"federation_key": key, "seed": trial.spec.seed, **row} for row in of["rounds"]],
        )

    return store
