"""`bench tune` and `bench compare` as a user calls them."""

from __future__ import annotations

import pytest

STUDY = """
version: 1
name: tiny
seeds: [0, 1]
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 1, batch_size: 1}
  targets: 2
attacks: [{name: idlg, iterations: 1}]
judge: {attacks: [{name: inverting_gradients, iterations: 1}]}
space:
  gaussian: {noise_budget: {float: [1e-3, 1], log: true}}
objectives: {accuracy: maximize, leakage: minimize}
trials: 2
parallel: 2
"""


@pytest.fixture
def tune(bench, write_matrix, tmp_path):
    """Call `bench tune` on the tiny study, inline."""
    path = write_matrix(STUDY, name="tiny")

    def call(*options):
        where = ("--results", tmp_path, "--executor", "inline", "--progress", "plain")
        return bench("tune", path, *where, *options)

    return call


def test_a_study_from_its_check_to_its_comparison(tune, bench, tmp_path):
    checked = tune("--check", "--json")
    assert (checked.code, checked.json["trials"], checked.json["optuna_trials"]) == (0, 2 * 2 + 2, 2)
    assert checked.json["space"] == {"gaussian": ["gaussian.noise_budget"]}
    assert not (tmp_path / "tiny").exists()

    stopped = tune("--limit", 3)
    assert stopped.code == 3
    done = tune("--json")
    assert done.code == 0
    assert done.json["told"] == {"complete": 2}
    assert done.json["left"] == 0
    assert done.json["none"]["judged"] is not None
    front = done.json["front"]
    assert {member["done"]["label"] for member in front} == {"gaussian"}
    assert [one["accuracy_drop"] for one in done.json["iso_utility"]] == [0.01, 0.05]

    again = tune()
    assert again.code == 0
    assert "2 complete" in again.out
    assert "noise budgets at equal cost" in again.out
    more = tune("--trials", 3)
    assert (more.code, "3 of 3 Optuna trials" in more.err) == (0, True)

    compared = bench("compare", tmp_path / "tiny", "--accuracy-drop", "0.02", "--json")
    assert compared.code == 0
    assert [(one["defense"], one["accuracy_drop"]) for one in compared.json] == [("gaussian", 0.02)]
    table = bench("compare", tmp_path / "tiny")
    assert table.code == 0
    assert "digits, lenet" in table.out


def test_mistakes_lead_to_exit_2_and_nothing_is_written(bench, write_matrix, tmp_path):
    path = write_matrix(STUDY.replace("objectives: {accuracy: maximize, leakage: minimize}\n", ""))
    outcome = bench("tune", path, "--results", tmp_path / "results")
    assert outcome.code == 2
    assert f"{path}:2: expected objectives" in outcome.err
    assert not (tmp_path / "results").exists()
    assert bench("compare", tmp_path).code == 2
    assert bench("tune", path, "--trials", 0).code == 2
    assert bench("compare", tmp_path, "--accuracy-drop", 1).code == 2


def test_a_damaged_journal_is_exit_2(tune, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "journal.log").write_text("nonsense\n")
    outcome = tune()
    assert outcome.code == 2
    assert "damaged journal" in outcome.err
