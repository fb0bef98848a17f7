"""Attacks that a defense was not tuned against score the front, and expose one that fools the others."""

from __future__ import annotations

import pytest

from harness.tune.summary import summarise

PLANTED = """
version: 1
name: small
seeds: [0, 1]
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 0, batch_size: 1}
  threat_model: {knowledge: {labels: known}}
  targets: 3
attacks: [{name: idlg, iterations: 30}]
judge: {attacks: [{name: inverting_gradients, iterations: 120, total_variation: 1e-4}], tolerance: 0.1}
space:
  shrink: {noise_budget: {choice: [1e-3, 1e-4]}}
objectives: {accuracy: maximize, leakage: minimize}
trials: 2
"""


@pytest.fixture
def planted(run, plugin):
    """A study of a defense that scales updates: idlg matches magnitudes, inverting_gradients directions."""
    plugin("shrink")
    result, tuner = run(PLANTED)
    return tuner, summarise(tuner, result.told)


def test_a_defense_that_only_fools_the_tuning_attack_is_exposed(planted):
    _, summary = planted
    assert summary.none.leakage.mean > 0.3
    assert not summary.none.judged.exposed
    for member in summary.front:
        assert member.leakage.mean < 0.2
        assert member.judged.leakage.mean > 0.3
        assert member.judged.gap.mean > 0.1
        assert member.judged.exposed


def test_the_judges_trials_are_ordinary_ones_of_the_front_alone(planted, rows, journal, folder):
    tuner, summary = planted
    table = rows()
    judged = table[table["attack"] == "inverting_gradients"]
    front = [member.done.number for member in summary.front]
    assert set(judged.loc[judged["defense"] == "shrink", "optuna_trial"]) <= set(front)
    assert sorted(judged.loc[judged["defense"] == "none", "seed"]) == [0, 1]
    told = {name for trial in journal(folder).trials for name in trial.user_attrs["trials"]}
    assert not told & set(judged["trial_id"])
    assert tuner.finished
