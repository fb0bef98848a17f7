"""When memory runs out, here in allocations that really fail, batches get narrower."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pandas as pd
import pytest

from attacks.engine.formulations import FORMULATIONS
from attacks.engine.table import VARIABLE, using
from harness.execute.bundle import solve_bundle
from harness.execute.executor import LaneSettings
from harness.execute.lane import Lane
from harness.execute.results import load_result, result_key
from harness.execute.work import BundleItem

MATRIX = """
seeds: [1, 2]
matrix:
  attack: [{name: inverting_gradients, iterations: 2}]
"""


@pytest.fixture(name="hungry")
def hungry_fixture(monkeypatch, tmp_path):
    """The hungry formulation in place of `layers`, at 32 lanes by a table of the user's."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    module = importlib.import_module("hungry")
    monkeypatch.setitem(FORMULATIONS, "layers", module.Hungry)
    monkeypatch.setattr(module.Hungry, "most", 16)
    path = tmp_path / "wide.json"
    path.write_text(module.TABLE.text)
    monkeypatch.setenv(VARIABLE, str(path))
    return module


@pytest.fixture(name="when", params=["made", "used"])
def when_fixture(hungry, monkeypatch, request):
    """Memory runs out when a batch is made, or when it is used."""
    monkeypatch.setattr(hungry.Hungry, "late", request.param == "used")


@pytest.mark.usefixtures("when")
def test_a_bundle_is_solved_in_narrower_batches(hungry, run, trials, listener):
    result = run(MATRIX)
    rows = trials()

    assert (result.complete, result.failed) == (2, 0)
    assert rows["lane_width"].tolist() == [16, 16]
    assert set(rows["engine"]) == {"layers"}
    assert set(rows["engine_table"]) == {hungry.TABLE.digest}  # the one in use, whatever memory there was
    assert rows["attempts"].tolist() == [2, 2]
    (message,) = listener.events["message"]
    assert "(2 trials)" in message
    assert "can't allocate memory" in message
    assert message.endswith("trying again with at most 16 side by side")


def test_widths_go_down_to_the_plain_loop(hungry, monkeypatch, run, trials, listener):
    monkeypatch.setattr(hungry.Hungry, "most", 0)
    assert run(MATRIX).complete == 2
    rows = trials()

    assert set(rows["engine"]) == {"reference"}
    assert rows["attempts"].tolist() == [4, 4]
    endings = [text.partition("trying again ")[2] for text in listener.events["message"]]
    assert endings == ["with at most 16 side by side", "with at most 1 side by side", "one after the other"]


@pytest.mark.usefixtures("hungry")
def test_the_narrower_row_is_the_one_of_a_narrower_table(run, trials, folder):
    run(MATRIX)
    retried = trials()
    folder.rename(folder.with_name("retried"))
    path = Path(os.environ[VARIABLE])
    path.write_text(path.read_text().replace("32", "16"))
    run(MATRIX)

    apart = ["engine_table", "attempts", "finished", "wall_s", "cpu_s", "peak_mem_mib"]
    frames = [
        rows.sort_values("trial_id", ignore_index=True).drop(columns=apart) for rows in (retried, trials())
    ]
    pd.testing.assert_frame_equal(*frames, check_exact=True)


def test_what_was_solved_before_memory_ran_out_is_kept(hungry, monkeypatch, workshop, trials_of):
    """A second attack configuration makes no second bundle, but its tasks come later."""
    trials, shop = trials_of("matrix: {attack: [{name: dlg, iterations: {grid: [1, 2]}}]}"), workshop()
    first, second = sorted(trials, key=lambda trial: trial.spec.attack.config.iterations)

    def starve():
        monkeypatch.setattr(hungry.Hungry, "most", 0)

    monkeypatch.setattr(hungry.Hungry, "late", True)
    monkeypatch.setattr(hungry.Hungry, "most", 32)
    with using(hungry.TABLE), pytest.raises(RuntimeError, match="can't allocate memory"):
        solve_bundle(
            shop.materials, shop.store, shop.scorer, BundleItem((first, second)), shop.meter, solved=starve
        )

    assert shop.store.has(result_key(first.trial_id))
    assert not shop.store.has(result_key(second.trial_id))
    assert load_result(shop.store, first.trial_id).columns["lane_width"] == 32


def test_a_lane_says_how_wide_it_was_when_memory_ran_out(hungry, trials_of, tmp_path):
    (trial,) = trials_of("matrix: {attack: [{name: dlg, iterations: 1}]}")
    settings = LaneSettings(str(tmp_path / "a"), str(tmp_path / "p"), "cpu", hungry.TABLE.text)
    lane = Lane(settings, "one", gpu=False)

    wide = lane.run(BundleItem((trial,)))
    assert (wide.failure.kind, wide.failure.lanes) == ("out_of_memory", 32)
    assert "RuntimeError" in wide.failure.traceback
    narrow = lane.run(BundleItem((trial,), lane_limit=16))
    assert narrow.failure is None
