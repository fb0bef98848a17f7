"""A defense with state under the Ray executor: the rows of one process, whoever dies."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from ray_shadow_lanes import FAULT
from ray_test_items import FOLDER

from harness.config.matrix import load_matrix
from harness.execute.session import RunRequest, inline, run_matrix

pytestmark = [pytest.mark.ray, pytest.mark.slow]

COSTS = ["wall_s", "cpu_s", "gpu_s", "peak_mem_mib", "attempts", "finished"]
MATRIX = """
defaults:
  data: {name: digits, size: 16}
  model: {name: convnet, width: 4, convs: 3}
  federation: {clients: 6, rounds: 3, batch_size: 4, chunk: 2, algorithm: fedavg, local_steps: 2}
  observe: {round: 2}
  targets: 2
matrix:
  attacker: [static, adaptive]
  defense:
    - name: shadowdef
      shadow_final: 2
      latent_steps: 20
      latent_lr: 0.05
      generator: {latent: 8, width: 4, steps: 20}
  attack: [{name: inverting_gradients, iterations: 5}]
"""


@pytest.fixture
def rows(write_matrix, tmp_path, listener):
    """From an executor to the tables of a run."""
    matrix = load_matrix(write_matrix(MATRIX))

    def run(name, executor):
        result = run_matrix(RunRequest(matrix, tmp_path / name, executor, device="cpu"), listener)
        assert (result.complete, result.failed) == (2, 0)
        folder = tmp_path / name / matrix.name
        trials = pd.read_parquet(folder / "trials").sort_values("trial_id", ignore_index=True)
        rounds = pd.read_parquet(folder / "rounds").sort_values("round", ignore_index=True)
        return trials.drop(columns=COSTS), rounds

    return run


def test_clients_shadows_survive_their_actors(rows, no_ray, monkeypatch):
    from harness.execute.ray_cluster import RayOptions, connect
    from harness.execute.ray_executor import RayExecutor

    monkeypatch.setenv("PYTHONPATH", FOLDER)
    faults = []

    def executor(settings):
        return RayExecutor(settings, lane_class="ray_shadow_lanes:MortalLane")

    def mortal(settings):
        faults.append(Path(settings.artifact_uri) / FAULT)
        faults[0].parent.mkdir(parents=True, exist_ok=True)
        faults[0].touch()
        return executor(settings)

    expected = rows("inline", inline)
    for workers, start in ((1, executor), (2, executor), (2, mortal)):
        connection = connect(RayOptions("local", workers=workers, object_store_mib=128))
        try:
            found = rows(f"{workers}-{start.__name__}", start)
        finally:
            connection.close()
        for table, other in zip(found, expected, strict=True):
            pd.testing.assert_frame_equal(table, other, check_exact=True)
    assert faults
    assert not faults[0].exists()
