"""`run` from a file to stored rows, in this process; what `plan` and `show` say afterwards."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from attacks import ATTACKS
from attacks.base import Attack, TaskFailure
from fl.cards import AttackCard
from fl.specs import NoConfig


class GivesUp(Attack[NoConfig]):
    """Fails on every task until it is told to work."""

    works = False

    def solve(self, tasks, env):
        if self.works:
            yield from ATTACKS.implementation("random_guess")().solve(tasks, env)
            return
        for task in tasks:
            yield TaskFailure(task.task_id, "gave up [bold]early[/bold]")


@pytest.fixture
def gives_up(register):
    card = AttackCard(
        name="gives_up",
        version=1,
        summary="Gives up.",
        config=NoConfig,
        implementation=f"{__name__}:GivesUp",
        family="gradient_inversion",
        observes=frozenset({"update"}),
        evaluations=lambda config: 1,
    )
    register(ATTACKS, card)
    yield GivesUp
    GivesUp.works = False


@pytest.fixture
def run(bench, tmp_path):
    """Run a matrix inline, with results under the test's folder."""

    def call(path, *options):
        return bench("run", path, "--executor", "inline", "--results", tmp_path / "results", *options)

    return call


def test_run_plan_and_show_agree(bench, run, write_matrix, tmp_path):
    path, folder = write_matrix(), tmp_path / "results" / "tiny"
    first = run(path, "--json")
    assert first.code == 0
    assert (first.json["complete"], first.json["remaining"], first.json["exit_code"]) == (8, 0, 0)
    assert "8 trials on this process" in first.err
    assert "8 complete" in first.err

    trials = pd.read_parquet(folder / "trials")
    counts = bench("plan", path, "--results", tmp_path / "results", "--json").json["trials"]
    assert (counts["complete"], counts["todo"]) == (8, 0)
    again = run(path, "--json")
    assert (again.code, again.json["complete"]) == (0, 0)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "trials"), trials)

    summary = bench("show", folder, "--json").json
    assert summary["trials"] == {"complete": 8}
    assert [(row["defense"], row["attack"], row["trials"]) for row in summary["summary"]] == [
        ("none", "idlg", 2),
        ("none", "random_guess", 2),
        ("gaussian", "idlg", 2),
        ("gaussian", "random_guess", 2),
    ]
    for row in summary["summary"]:
        mine = trials[(trials["defense"] == row["defense"]) & (trials["attack"] == row["attack"])]
        assert row["psnr_db_median"] == pytest.approx(mine["psnr_db_median"].median(), rel=1e-12)
        assert row["success_rate"] == pytest.approx(mine["success_rate"].mean(), rel=1e-12)
        assert row["accuracy"] == pytest.approx(mine["accuracy"].mean(), rel=1e-12)

    one = trials.iloc[0]
    shown = bench("show", folder, one["trial_id"][:12], "--json").json
    assert shown["trial_id"] == one["trial_id"]
    assert shown["psnr_db"] == pytest.approx(one["psnr_db"], rel=1e-12)
    assert len(shown["reconstructions"]) == 2
    text = bench("show", folder, one["trial_id"]).out
    assert one["trial_id"] in text
    assert "psnr_db" in text
    assert "attack_top1" not in text
    assert "lpips* is null: LPIPS is left out of these tests" in text


def test_a_run_ends_with_a_summary_and_where_the_results_are(run, write_matrix, tmp_path):
    outcome = run(write_matrix(), "--progress", "none", "--seeds", "0")
    assert outcome.code == 0
    assert outcome.err == ""
    assert "random_guess" in outcome.out
    assert f"Results: {tmp_path / 'results' / 'tiny'}" in outcome.out


def test_what_limit_holds_back_is_left_to_run(run, write_matrix):
    assert run(write_matrix(), "--limit", "3").code == 3
    outcome = run(write_matrix(), "--json")
    assert (outcome.code, outcome.json["complete"]) == (0, 5)


def test_smoke_has_a_folder_of_its_own(run, write_matrix, tmp_path):
    assert run(write_matrix(), "--smoke").code == 0
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["tiny-smoke"]


def test_options_that_tell_trials_apart_are_shown(bench, run, write_matrix, tmp_path):
    text = """
    version: 1
    name: options
    defaults:
      data: {name: digits, size: 8}
      model: {name: lenet, convs: 2}
      federation: {clients: 4, batch_size: 1}
      targets: 2
    matrix:
      attack: [{name: idlg, iterations: {grid: [1, 2]}}, random_guess]
    """
    assert run(write_matrix(text)).code == 0
    rows = bench("show", tmp_path / "results" / "options", "--json").json["summary"]
    assert [(row["attack"], row["attack_iterations"]) for row in rows] == [
        ("idlg", 1),
        ("idlg", 2),
        ("random_guess", None),
    ]
    shown = bench("show", tmp_path / "results" / "options").out
    assert re.findall(r"iterations=\d", shown) == ["iterations=1", "iterations=2"]


def test_failures_are_exit_1_and_are_told_until_they_succeed(bench, run, write_matrix, tmp_path, gives_up):
    text = """
    version: 1
    name: failing
    defaults:
      data: {name: digits, size: 8}
      model: {name: lenet, convs: 2}
      federation: {clients: 4, batch_size: 1}
      targets: 2
    matrix:
      attack: [gives_up, random_guess]
    """
    path, folder = write_matrix(text), tmp_path / "results" / "failing"
    outcome = run(path)
    assert outcome.code == 1
    assert "gave up [bold]early[/bold]" in outcome.err
    assert "1 trials failed" in outcome.out
    assert "gave up [bold]early[/bold]" in outcome.out
    trials = pd.read_parquet(folder / "trials")
    failed = trials.loc[trials["status"] == "failed", "trial_id"].item()
    assert "gave up [bold]early[/bold]" in bench("show", folder, failed).out

    assert run(path, "--keep-failed").code == 0
    gives_up.works = True
    assert run(path).code == 0
    trials = pd.read_parquet(folder / "trials")
    assert sorted(trials["status"]) == ["complete", "complete"]


def test_the_beginning_of_an_id_must_be_that_of_one_trial(bench, run, write_matrix, tmp_path):
    assert run(write_matrix(), "--seeds", "0").code == 0
    folder = tmp_path / "results" / "tiny"
    for prefix, said in (("", "4 of them match"), ("zz", "none match")):
        outcome = bench("show", folder, prefix)
        assert outcome.code == 2
        assert said in outcome.err
