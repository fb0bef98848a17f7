"""Running a matrix again: what is new, what failed and what was lost is run, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace

import pandas as pd
import pytest
import torch

from attacks import ATTACKS
from attacks.base import Attack, Reconstruction, TaskFailure
from attacks.catalog import MEAN_IMAGE
from fl.cards import always_compatible
from fl.errors import LockHeldError
from fl.specs import Config
from harness.config.matrix import load_matrix
from harness.execute.events import RunResult
from harness.execute.session import RunRequest, inline, run_matrix


class MoodyConfig(Config):
    greedy_seed: int = -1
    shade: float = 0.5


class Moody(Attack[MoodyConfig]):
    """Answers grey; fails for the seeds in `MOODY_FAILS`, and takes all the time there is for greedy ones."""

    solved: list = []  # noqa: RUF012  one list for all instances, read by the tests

    def solve(self, tasks, env):
        for task in tasks:
            self.solved.append(task.task_id)
            while task.streams.seed % 2 == task.config.greedy_seed:
                if env.stopping(task.task_id):
                    break
            if env.stopping(task.task_id) or str(task.streams.seed) in os.environ.get("MOODY_FAILS", ""):
                yield TaskFailure(task.task_id, "not today")
                continue
            shape = (task.observation.update.n_images, *task.observation.image.shape)
            images = torch.full(shape, task.config.shade)
            yield Reconstruction(task.task_id, images, None, {}, 3, 1)


@pytest.fixture(autouse=True)
def _moody(register):
    card = replace(MEAN_IMAGE, name="moody", config=MoodyConfig, implementation=f"{__name__}:Moody")
    register(ATTACKS, replace(card, compatible=always_compatible))
    Moody.solved.clear()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results" / "small"


@pytest.fixture
def run(write_matrix, listener, tmp_path):
    """Run the text of a matrix as the experiment `small`."""

    def start(text, *, watch=listener, **options):
        request = RunRequest(load_matrix(write_matrix(text)), tmp_path / "results", inline, **options)
        return run_matrix(request, watch)

    return start


def trials(folder):
    rows = pd.read_parquet(folder / "trials")
    assert not rows["trial_id"].duplicated().any()
    return rows


SMALL = "matrix: {attack: [moody, random_guess]}"


def test_a_finished_matrix_is_not_run_again(run, folder):
    assert run(SMALL).complete == 2
    before, solved = trials(folder), len(Moody.solved)
    again = run(SMALL)

    assert (again.complete, again.failed, again.remaining, again.exit_code) == (0, 0, 0, 0)
    assert len(Moody.solved) == solved
    pd.testing.assert_frame_equal(trials(folder), before)


def test_a_new_axis_runs_new_trials_only_and_brings_its_column(run, folder):
    run(SMALL)
    old = trials(folder)
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
    rows = trials(folder)

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


def test_columns_without_a_value_in_the_first_rows_still_read(run, folder):
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
    first = trials(folder)
    assert first["psnr_db"].isna().all()
    run(SMALL)
    rows = trials(folder)

    assert len(rows) == 3
    assert rows["psnr_db"].notna().sum() == 2
    for column in ("psnr_db", "lpips", "lpips_ci_low", "epsilon", "label_accuracy"):
        assert first[column].dtype == rows[column].dtype == "float64", column


def test_trials_that_leave_the_matrix_stay_in_the_table(run, folder):
    run("seeds: [0, 1]\nmatrix: {attack: [moody]}")
    assert run("seeds: [1, 2]\nmatrix: {attack: [moody]}").complete == 1
    assert sorted(trials(folder)["seed"]) == [0, 1, 2]


SEEDS = "seeds: [1, 2, 3]\nmatrix: {attack: [moody]}"


def test_a_failed_trial_becomes_complete_in_its_one_row(run, folder, monkeypatch):
    monkeypatch.setenv("MOODY_FAILS", "2")
    first = run(SEEDS)
    rows = trials(folder).set_index("seed")

    assert (first.complete, first.failed, first.exit_code) == (2, 1, 1)
    assert rows["status"].to_dict() == {1: "complete", 2: "failed", 3: "complete"}
    assert "not today" in rows.loc[2, "error"]
    assert pd.isna(rows.loc[2, "psnr_db"])
    solved = len(Moody.solved)
    monkeypatch.delenv("MOODY_FAILS")
    second = run(SEEDS)
    after = trials(folder).set_index("seed")

    assert (second.complete, second.failed, second.exit_code) == (1, 0, 0)
    assert len(Moody.solved) == solved + 2  # the failed trial's two targets
    assert after["status"].tolist() == ["complete"] * 3
    assert pd.isna(after.loc[2, "error"])
    assert after.loc[2, "trial_id"] == rows.loc[2, "trial_id"]
    assert len(pd.read_parquet(folder / "reconstructions")) == 6


def test_a_trial_that_keeps_failing_has_one_row(run, folder, monkeypatch):
    monkeypatch.setenv("MOODY_FAILS", "2")
    for _ in range(3):
        assert run(SEEDS).exit_code == 1
    assert trials(folder)["status"].value_counts().to_dict() == {"complete": 2, "failed": 1}


def test_failed_trials_are_kept_on_request(run, folder, monkeypatch):
    monkeypatch.setenv("MOODY_FAILS", "2")
    run(SEEDS)
    monkeypatch.delenv("MOODY_FAILS")
    kept = run(SEEDS, keep_failed=True)

    assert (kept.complete, kept.failed, kept.remaining) == (0, 0, 0)
    assert "failed" in set(trials(folder)["status"])


def test_too_many_failures_stop_a_run(run, monkeypatch):
    monkeypatch.setenv("MOODY_FAILS", "1234567")
    result = run("seeds: [1, 2, 3, 4, 5, 6, 7]\nmatrix: {attack: [moody]}", max_failures=2)

    assert result.failed == 3
    assert result.remaining == 4
    assert result.exit_code == 1


def test_a_limit_leaves_the_rest_for_later(run, folder):
    first = run(SEEDS, limit=2)
    assert (first.complete, first.remaining, first.exit_code) == (2, 1, 3)
    second = run(SEEDS, limit=2)
    assert (second.complete, second.remaining, second.exit_code) == (1, 0, 0)
    assert len(trials(folder)) == 3


def test_what_was_solved_but_not_written_is_not_solved_again(run, folder):
    """A driver that dies before its commit leaves artifacts; the next one makes their rows."""
    run(SEEDS)
    before, solved = trials(folder), len(Moody.solved)
    for table in ("trials", "reconstructions", "rounds"):
        shutil.rmtree(folder / table)
    result = run(SEEDS)
    after = trials(folder)

    assert result.complete == 3
    assert len(Moody.solved) == solved
    assert len(pd.read_parquet(folder / "reconstructions")) == 6
    measured = ["finished", "attempts"]
    pd.testing.assert_frame_equal(
        after.drop(columns=measured).sort_values("trial_id", ignore_index=True),
        before.drop(columns=measured).sort_values("trial_id", ignore_index=True),
    )


def test_a_solved_trial_whose_federation_was_lost_gets_it_back(run, folder):
    run(SEEDS)
    accuracy = trials(folder).set_index("seed")["accuracy"].to_dict()
    for key in trials(folder)["federation_key"]:
        for path in (folder / "artifacts").rglob(f"{key}*"):
            path.unlink()
    shutil.rmtree(folder / "trials")
    solved = len(Moody.solved)

    assert run(SEEDS).complete == 3
    assert len(Moody.solved) == solved
    assert trials(folder).set_index("seed")["accuracy"].to_dict() == accuracy


def test_a_federation_that_fails_takes_its_trials_with_it_until_the_next_run(run, folder, listener):
    text = "matrix: {attack: [moody], observe.round: [0, 1]}"
    first = run(f"resources: {{federation: {{timeout: 0.000001s}}}}\n{text}")
    rows = trials(folder)

    assert (first.complete, first.failed, first.remaining) == (0, 2, 0)
    assert rows["error"].str.contains("federation under none, seed 0: .*0 of 2 rounds").all()
    assert sum("trying again" in told for told in listener.events["message"]) == 1
    second = run(text)
    assert (second.complete, second.exit_code) == (2, 0)
    assert trials(folder)["status"].tolist() == ["complete", "complete"]
    assert len(Moody.solved) == 4  # what was solved in the first run was not solved again


def test_the_greedy_companion_of_a_trial_costs_it_nothing(run, folder):
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
    rows = trials(folder)
    even = rows["seed"] % 2 == 0

    assert (result.complete, result.failed) == (8, 8)
    assert set(rows.loc[even, "status"]) == {"failed"}
    assert rows.loc[even, "error"].str.contains("no result within 0.2 s").all()
    assert set(rows.loc[~even, "status"]) == {"complete"}


def test_a_second_driver_is_refused_while_one_runs(run, folder, listener):
    refused = []

    class Intruder(type(listener)):
        def trial(self, done):
            with pytest.raises(LockHeldError, match="in use by process") as error:
                run(SEEDS, watch=listener)
            refused.append(error.value.exit_code)

    result = run(SEEDS, watch=Intruder())

    assert refused == [2, 2, 2]
    assert (result.complete, result.exit_code) == (3, 0)
    assert len(trials(folder)) == 3
    assert run(SEEDS).exit_code == 0  # the lock was given back


def interrupting(listener, times):
    """A listener at whose first finished trial the user presses Ctrl-C so many times."""

    class Impatient(type(listener)):
        def trial(self, done):
            super().trial(done)
            if len(self.events["trial"]) == 1:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)

    return Impatient()


def test_one_interrupt_stores_what_runs_and_stops(run, folder, listener):
    watch = interrupting(listener, 1)
    result = run(SEEDS, watch=watch)

    assert (result.complete, result.remaining, result.exit_code) == (1, 2, 3)
    assert result.interrupted
    assert any("stopping" in text for text in watch.events["message"])
    assert len(trials(folder)) == 1
    assert run(SEEDS).complete == 2


def test_two_interrupts_stop_at_once_and_harm_nothing(run, folder, listener):
    result = run(SEEDS, watch=interrupting(listener, 2))
    assert (result.killed, result.exit_code) == (True, 130)
    again = run(SEEDS)

    assert again.exit_code == 0
    assert sorted(trials(folder)["seed"]) == [1, 2, 3]
    assert set(trials(folder)["status"]) == {"complete"}


def test_the_handlers_of_signals_are_given_back(run):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(SMALL)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_what_means_nothing_has_one_row_with_its_reason(run, folder):
    text = """
    matrix:
      attack: [moody, {name: inverting_gradients, iterations: 1, unroll: true}]
    """
    for _ in range(2):
        result = run(text)
        assert (result.not_applicable, result.exit_code) == (1, 0)
    rows = trials(folder).set_index("attack")

    assert rows["status"].to_dict() == {"moody": "complete", "inverting_gradients": "not_applicable"}
    assert "unroll" in rows.loc["inverting_gradients", "error"]


def test_a_federation_is_trained_once_and_its_rounds_are_stored_once(run, folder):
    run(SMALL)
    run("matrix: {attack: [moody, random_guess, mean_image], observe.round: [0, 2]}")
    rounds = pd.read_parquet(folder / "rounds")

    assert trials(folder)["federation_key"].nunique() == 1
    assert rounds["round"].tolist() == [0, 1, 2]
    last = rounds.set_index("round").loc[2]
    assert set(trials(folder)["accuracy"]) == {last["accuracy"]}
    assert set(trials(folder)["bytes_up"]) == {rounds["bytes_up"].sum()}


def test_every_row_holds_its_spec(run, folder):
    run(SMALL)
    for _, row in trials(folder).iterrows():
        spec = json.loads(row["spec"])
        assert spec["attack"]["name"] == row["attack"]
        assert spec["seed"] == row["seed"]


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        ({}, 0),
        ({"remaining": 1}, 3),
        ({"failed": 1}, 1),
        ({"failed": 1, "remaining": 1}, 1),
        ({"remaining": 1, "interrupted": True}, 3),
        ({"interrupted": True}, 0),
        ({"failed": 1, "killed": True}, 130),
    ],
)
def test_exit_codes(ended, code):
    end = {"complete": 1, "failed": 0, "not_applicable": 0, "remaining": 0, "interrupted": False}
    result = RunResult(**{**end, "killed": False, "wall_s": 1.0, **ended})
    assert result.exit_code == code
