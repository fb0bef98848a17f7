"""A participant who inverts the models it received, under the Ray executor: the rows of one process."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from ray_inversion_lanes import FAULT, STEPS

from harness.config.matrix import load_matrix
from harness.execute.session import RunRequest, inline, run_matrix
from harness.metrics import evaluator_costs

pytestmark = [pytest.mark.ray, pytest.mark.slow]

COSTS = ["wall_s", "cpu_s", "gpu_s", "peak_mem_mib", "attempts", "finished"]
KEYS = {
    "trials": ["trial_id"],
    "reconstructions": ["trial_id", "target_id", "reconstruction_index"],
    "rounds": ["round"],
    "traces": ["trial_id", "target_id", "restart", "iteration"],
}
MATRIX = """
defaults:
  data: {name: digits, size: 16, public_labels: [5, 6, 7, 8, 9]}
  model: {name: lenet, convs: 2, init: default}
  federation:
    algorithm: fedavg
    clients: 4
    rounds: 2
    chunk: 2
    batch_size: 16
    attacker: {labels: [5, 6, 7, 8, 9], others: [0, 1, 2, 3, 4]}
  observe: {kind: global_model}
  threat_model: {position: participant}
  targets: 2
matrix:
  observe.round: [1, 2]
  attack:
    - name: random_prior
      samples: 2
      prior: &prior {kind: wgan_gp, critic: true, latent: 8, width: 2, steps: 3}
    - {name: gmi, samples: 2, iterations: 3, prior: *prior}
    - name: kedmi
      samples: 2
      iterations: 3
      gan: {steps: 5, batch_size: 8, latent: 8, width: 2, kernels: 4, kernel_dimensions: 2}
"""


@pytest.fixture
def tables(write_matrix, tmp_path, listener):
    """From an executor to the tables of a run, without what it cost."""
    matrix = load_matrix(write_matrix(MATRIX))

    def run(name, executor):
        result = run_matrix(RunRequest(matrix, tmp_path / name, executor, device="cpu"), listener)
        assert (result.complete, result.failed) == (6, 0)
        folder = tmp_path / name / matrix.name
        read = {table: pd.read_parquet(folder / table) for table in KEYS}
        read["trials"] = read["trials"].drop(columns=COSTS)
        return {table: rows.sort_values(KEYS[table], ignore_index=True) for table, rows in read.items()}

    return run


def test_lanes_share_stages_of_rounds_and_of_the_judge(tables, private_ray, monkeypatch):
    from harness.execute.ray_executor import RayExecutor

    faults = []

    def mortal(settings):
        faults.append(Path(settings.artifact_uri) / FAULT)
        faults[0].parent.mkdir(parents=True, exist_ok=True)
        faults[0].touch()
        return RayExecutor(settings, lane_class="ray_inversion_lanes:MortalLane")

    found = tables("ray", mortal)
    assert not faults[0].exists()
    for limit in ("LEAST_STEPS", "MOST_STEPS"):
        monkeypatch.setattr(evaluator_costs, limit, STEPS)
    expected = tables("inline", inline)
    assert expected["trials"]["attack_top1"].notna().all()
    for table, rows in expected.items():
        pd.testing.assert_frame_equal(found[table], rows, check_exact=True, obj=table)
