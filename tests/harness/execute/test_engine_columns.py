"""Rows and logs say which engine solved them, and a user's table decides it."""

import logging
from dataclasses import replace

import pandas as pd
import pytest

from attacks import ATTACKS
from attacks.catalog import MEAN_IMAGE
from attacks.engine.table import VARIABLE, Choice, EngineTable, shipped
from attacks.floors import MeanImage
from fl.errors import UsageError
from harness.cli.main import run as bench

MATRIX = """
matrix:
  attack: [{name: inverting_gradients, iterations: 2}, random_guess]
"""
MINE = EngineTable({"cpu": {"lenet": Choice("layers", 1)}}, {})


@pytest.fixture(name="mine")
def mine_fixture(tmp_path, monkeypatch):
    """A table of the user's own."""
    path = tmp_path / "mine.json"
    path.write_text(MINE.text)
    monkeypatch.setenv(VARIABLE, str(path))


def engines(rows):
    columns = ["engine", "lane_width", "engine_table"]
    found = rows.set_index("attack")[columns].astype(object)
    return {attack: tuple(None if pd.isna(x) else x for x in row) for attack, row in found.iterrows()}


def test_the_shipped_table_is_in_the_row(run, trials, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    run(MATRIX)
    choice = shipped().portable["cpu"]["lenet"]  # the native kernel is for L-BFGS

    assert engines(trials())["inverting_gradients"] == (*choice, shipped().digest)
    assert engines(trials())["random_guess"][:2] == ("reference", 1)


@pytest.mark.usefixtures("mine")
def test_the_users_table_is_used_and_named(run, trials):
    run(MATRIX)

    assert engines(trials())["inverting_gradients"] == ("layers", 1, MINE.digest)


class Own(MeanImage):
    """An attack with formulations of its own, one of which is called as one of the solver's."""

    def solve(self, tasks, env):
        for answer in super().solve(tasks, env):
            yield replace(answer, formulation="vmap", lane_width=8)


def test_a_table_that_was_not_asked_is_not_named(run, trials, register):
    register(ATTACKS, replace(MEAN_IMAGE, name="own", implementation=f"{__name__}:Own"))
    run("matrix: {attack: [own]}")

    assert engines(trials())["own"] == ("vmap", 8, None)


def test_a_table_that_cannot_be_read_stops_before_any_work(run, folder, monkeypatch):
    monkeypatch.setenv(VARIABLE, "/none/such.json")
    with pytest.raises(UsageError, match="none/such"):
        run(MATRIX)
    assert not folder.exists()


@pytest.mark.usefixtures("mine")
def test_the_log_names_the_engine_of_each_bundle_and_show_that_of_a_trial(
    run, trials, folder, caplog, capsys
):
    with caplog.at_level(logging.INFO, logger="harness.execute.driver"):
        run(MATRIX)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert any("inverting_gradients on none (1 trials): solved by layers, 1 side" in line for line in told)
    assert any(MINE.digest in line for line in told)

    rows = trials()
    trial = rows.loc[rows["attack"] == "inverting_gradients", "trial_id"].iloc[0]
    assert bench(["show", str(folder), trial]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"formulation layers, lane width 1, table {MINE.digest}" in shown
