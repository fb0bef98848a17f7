"""Running out of memory on a lane: the bundle comes back narrower, on a fresh lane, and its rows say so."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from attacks.engine.table import VARIABLE
from harness.config.matrix import load_matrix
from harness.execute.session import RunRequest, run_matrix

sys.path.append(str(Path(__file__).parents[1]))
import hungry

pytestmark = pytest.mark.ray

MATRIX = """
seeds: [1, 2]
matrix:
  attack: [{name: inverting_gradients, iterations: 2}]
"""


@pytest.mark.usefixtures("private_ray")
def test_a_lane_without_memory_gets_a_narrower_bundle(write_matrix, tmp_path, monkeypatch, listener):
    from harness.execute.ray_executor import RayExecutor

    path = tmp_path / "wide.json"
    path.write_text(hungry.TABLE.text)
    monkeypatch.setenv(VARIABLE, str(path))
    request = RunRequest(
        load_matrix(write_matrix(MATRIX)),
        tmp_path / "results",
        lambda settings: RayExecutor(settings, lane_class="ray_real_lanes:HungryLane"),
        device="cpu",
    )
    result = run_matrix(request, listener)
    rows = pd.read_parquet(tmp_path / "results" / "small" / "trials")

    assert (result.complete, result.failed) == (2, 0)
    assert rows["lane_width"].tolist() == [16, 16]
    assert rows["engine_table"].tolist() == [hungry.TABLE.digest] * 2
    (message,) = listener.events["message"]
    assert message.endswith("trying again with at most 16 side by side")
