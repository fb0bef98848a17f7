"""Running a matrix again: what is new, what failed and what was lost is run, and nothing else."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from harness.config.matrix import load_matrix
from harness.execute.inline import InlineExecutor
from harness.execute.session import RunRequest, run_matrix

pytestmark = pytest.mark.usefixtures("moody")

SMALL = "matrix: {attack: [moody, random_guess]}"


def test_a_finished_matrix_is_not_run_again(run, trials, moody):
    assert run(SMALL).complete == 2
    before, solved = trials(), len(moody.SOLVED)
    again = run(SMALL)

    assert (again.complete, again.failed, again.remaining, again.exit_code) == (0, 0, 0, 0)
    assert len(moody.SOLVED) == solved
    pd.testing.assert_frame_equal(trials(), before)


def test_a_finished_matrix_starts_no_executor(run, write_matrix, folder, listener):
    run(SMALL)

    class Unstartable(InlineExecutor):
        def start(self, specs=()):
            raise AssertionError("there is nothing to run")

    request = RunRequest(load_matrix(write_matrix(SMALL)), folder.parent, Unstartable)
    assert run_matrix(request, listener).exit_code == 0


def test_a_new_axis_runs_new_trials_only_and_brings_its_column(run, trials):
    run(SMALL)
    old = trials()
    result = run(
        """
        matrix:
          attack:
            - {name: moody, shade: 0.5}
            - {name: moody, shade: 0.75}
            - random_guess
            - {name: dlg, iterations: 1}
          defense: [none, gaussian]
          noise_budget: {gaussian: [1e-3]}
          federation.lr: [0.1, 0.05]
        """
    )
    rows = trials()

    assert result.complete == 16 - 2
    assert len(rows) == 16
    assert set(old["trial_id"]) < set(rows["trial_id"])
    assert rows.groupby("defense").size().to_dict() == {"none": 8, "gaussian": 8}
    assert set(rows.groupby(["defense", "noise_budget"]).groups) == {("none", 0.0), ("gaussian", 1e-3)}
    assert "defense_sigma" not in old
    assert rows.loc[rows["defense"] == "gaussian", "defense_sigma"].tolist() == [1e-3] * 8
    assert rows.loc[rows["defense"] == "none", "defense_sigma"].isna().all()
    assert rows["attack_iterations"].dropna().unique().tolist() == [1]
    kept = rows[rows["trial_id"].isin(old["trial_id"])]
    assert set(kept["federation_lr"]) == {0.1}
    assert set(kept["finished"]) == set(old["finished"])
    shared = [column for column in old if column != "name"]
    pd.testing.assert_frame_equal(
        kept[shared].sort_values("trial_id", ignore_index=True),
        old[shared].sort_values("trial_id", ignore_index=True),
        check_dtype=False,
    )


def test_columns_without_a_value_in_the_first_rows_still_read(run, trials):
    """Model inversion has no PSNR, so the first file's column is all null; the next one's is not."""
    models = """
    defaults:
      data: {name: digits, size: 8}
      model: {name: lenet, convs: 2}
      federation: {clients: 4, rounds: 1, batch_size: 1}
      observe: {kind: global_model, round: 1}
      targets: 2
    matrix: {attack: [random_guess]}
    """
    run(models)
    first = trials()
    assert first["psnr_db"].isna().all()
    run(SMALL)
    rows = trials()

    assert len(rows) == 3
    assert rows["psnr_db"].notna().sum() == 2
    for column in ("psnr_db", "lpips", "lpips_ci_low", "epsilon", "label_accuracy"):
        assert first[column].dtype == rows[column].dtype == "float64", column


def test_trials_that_leave_the_matrix_stay_in_the_table(run, trials):
    run("seeds: [0, 1]\nmatrix: {attack: [moody]}")
    assert run("seeds: [1, 2]\nmatrix: {attack: [moody]}").complete == 1
    assert sorted(trials()["seed"]) == [0, 1, 2]


SEEDS = "seeds: [1, 2, 3]\nmatrix: {attack: [moody]}"


def test_a_failed_trial_becomes_complete_in_its_one_row(run, trials, folder, monkeypatch, moody):
    monkeypatch.setenv("MOODY_FAILS", "2")
    first = run(SEEDS)
    rows = trials().set_index("seed")

    assert (first.complete, first.failed, first.exit_code) == (2, 1, 1)
    assert rows["status"].to_dict() == {1: "complete", 2: "failed", 3: "complete"}
    assert "not today" in rows.loc[2, "error"]
    assert pd.isna(rows.loc[2, "psnr_db"])
    solved = len(moody.SOLVED)
    monkeypatch.delenv("MOODY_FAILS")
    second = run(SEEDS)
    after = trials().set_index("seed")

    assert (second.complete, second.failed, second.exit_code) == (1, 0, 0)
    assert len(moody.SOLVED) == solved + 2  # the failed trial's two targets
    assert after["status"].tolist() == ["complete"] * 3
    assert pd.isna(after.loc[2, "error"])
    assert after.loc[2, "trial_id"] == rows.loc[2, "trial_id"]
    assert len(pd.read_parquet(folder / "reconstructions")) == 6


def test_a_trial_that_keeps_failing_has_one_row(run, trials, monkeypatch):
    monkeypatch.setenv("MOODY_FAILS", "2")
    for _ in range(3):
        assert run(SEEDS).exit_code == 1
    assert trials()["status"].value_counts().to_dict() == {"complete": 2, "failed": 1}


def test_failed_trials_are_kept_on_request(run, trials, monkeypatch):
    monkeypatch.setenv("MOODY_FAILS", "2")
    run(SEEDS)
    monkeypatch.delenv("MOODY_FAILS")
    kept = run(SEEDS, keep_failed=True)

    assert (kept.complete, kept.failed, kept.remaining) == (0, 0, 0)
    assert "failed" in set(trials()["status"])


def test_what_was_solved_but_not_written_is_not_solved_again(run, trials, folder, moody):
    """A driver that dies before its commit leaves artifacts; the next one makes their rows."""
    run(SEEDS)
    before, solved = trials(), len(moody.SOLVED)
    for table in ("trials", "reconstructions", "rounds"):
        shutil.rmtree(folder / table)
    result = run(SEEDS)
    after = trials()

    assert result.complete == 3
    assert len(moody.SOLVED) == solved
    assert len(pd.read_parquet(folder / "reconstructions")) == 6
    measured = ["finished", "attempts"]
    pd.testing.assert_frame_equal(
        after.drop(columns=measured).sort_values("trial_id", ignore_index=True),
        before.drop(columns=measured).sort_values("trial_id", ignore_index=True),
    )


def test_a_solved_trial_whose_federation_was_lost_gets_it_back(run, trials, folder, moody):
    run(SEEDS)
    accuracy = trials().set_index("seed")["accuracy"].to_dict()
    for key in trials()["federation_key"]:
        for path in (folder / "artifacts").rglob(f"{key}*"):
            path.unlink()
    shutil.rmtree(folder / "trials")
    solved = len(moody.SOLVED)

    assert run(SEEDS).complete == 3
    assert len(moody.SOLVED) == solved
    assert trials().set_index("seed")["accuracy"].to_dict() == accuracy


def test_a_federation_that_fails_takes_its_trials_with_it_until_the_next_run(run, trials, listener, moody):
    text = "matrix: {attack: [moody], observe.round: [0, 1]}"
    first = run(f"resources: {{federation: {{timeout: 0.000001s}}}}\n{text}")
    rows = trials()

    assert (first.complete, first.failed, first.remaining) == (0, 2, 0)
    assert rows["error"].str.contains("federation under none, seed 0: .*0 of 2 rounds").all()
    assert sum("trying again" in told for told in listener.events["message"]) == 1
    second = run(text)
    assert (second.complete, second.exit_code) == (2, 0)
    assert trials()["status"].tolist() == ["complete", "complete"]
    assert len(moody.SOLVED) == 4  # what was solved in the first run was not solved again


def test_the_greedy_companion_of_a_trial_costs_it_nothing(run, trials):
    """Bundles share their time; who was left without any is tried again alone."""
    result = run(
        """
        seeds: {range: [0, 16]}
        resources: {attack: {timeout: 0.2s}}
        defaults:
          data: {name: digits, size: 8}
          model: {name: lenet, convs: 2}
          federation: {clients: 4, rounds: 0, batch_size: 1}
          targets: 1
        matrix: {attack: [{name: moody, greedy_seed: 0}]}
        """
    )
    rows = trials()
    even = rows["seed"] % 2 == 0

    assert (result.complete, result.failed) == (8, 8)
    assert set(rows.loc[even, "status"]) == {"failed"}
    assert rows.loc[even, "error"].str.contains("no result within 0.2 s").all()
    assert set(rows.loc[~even, "status"]) == {"complete"}


def test_what_means_nothing_has_one_row_with_its_reason(run, trials):
    text = """
    matrix:
      attack: [moody, {name: inverting_gradients, iterations: 1, unroll: true}]
    """
    for _ in range(2):
        result = run(text)
        assert (result.not_applicable, result.exit_code) == (1, 0)
    rows = trials().set_index("attack")

    assert rows["status"].to_dict() == {"moody": "complete", "inverting_gradients": "not_applicable"}
    assert "unroll" in rows.loc["inverting_gradients", "error"]


def test_a_federation_is_trained_once_and_its_rounds_are_stored_once(run, trials, folder):
    run(SMALL)
    run("matrix: {attack: [moody, random_guess, mean_image], observe.round: [0, 2]}")
    rounds = pd.read_parquet(folder / "rounds")

    assert trials()["federation_key"].nunique() == 1
    assert rounds["round"].tolist() == [0, 1, 2]
    last = rounds.set_index("round").loc[2]
    assert set(trials()["accuracy"]) == {last["accuracy"]}
    assert set(trials()["bytes_up"]) == {rounds["bytes_up"].sum()}


def test_every_row_holds_its_spec(run, trials):
    run(SMALL)
    for _, row in trials().iterrows():
        spec = json.loads(row["spec"])
        assert spec["attack"]["name"] == row["attack"]
        assert spec["seed"] == row["seed"]
