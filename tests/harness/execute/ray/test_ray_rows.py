"""A matrix through the run loop: the same rows from Ray as from one process."""

from __future__ import annotations

import pandas as pd
import pytest

from harness.config.matrix import load_matrix
from harness.execute.session import RunRequest, inline, run_matrix

pytestmark = pytest.mark.ray

COSTS = ["wall_s", "cpu_s", "gpu_s", "peak_mem_mib", "attempts", "finished"]
MATRIX = """
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 40, rounds: 3, batch_size: 8, participation: 0.7, chunk: 8, %s}
  observe: {round: 2}
  targets: 2
matrix:
  defense: [none]
  attack: [{name: inverting_gradients, iterations: 5}, random_guess, mean_image]
"""
FEDADAM = "algorithm: fedadam, server_lr: 0.02, momentum: 0.5, schedule: cosine, partition: shards"


@pytest.fixture(params=["algorithm: fedavg", FEDADAM])
def rows(request, write_matrix, tmp_path, listener):
    """From an executor to the tables of a run."""
    matrix = load_matrix(write_matrix(MATRIX % request.param))

    def run(name, executor):
        result = run_matrix(RunRequest(matrix, tmp_path / name, executor, device="cpu"), listener)
        assert (result.complete, result.failed) == (3, 0)
        folder = tmp_path / name / matrix.name
        trials = pd.read_parquet(folder / "trials").sort_values("trial_id", ignore_index=True)
        rounds = pd.read_parquet(folder / "rounds").sort_values(
            ["federation_key", "round"], ignore_index=True
        )
        return trials.drop(columns=COSTS), rounds

    return run


def test_a_distributed_federation_and_its_attacks_give_the_rows_of_one_process(
    rows, private_ray, listener, tmp_path
):
    from harness.execute.ray_executor import RayExecutor

    def on_ray(settings):
        return RayExecutor(settings, lane_class="ray_real_lanes:LaneWithoutLpips")

    trials, rounds = rows("ray", on_ray)
    assert listener.events["started"][-1][1:] == (2, "2 lanes on 1 node (2 CPU)")
    assert list(tmp_path.glob("ray/*/artifacts/served"))
    one_process_trials, one_process_rounds = rows("inline", inline)
    pd.testing.assert_frame_equal(trials, one_process_trials, check_exact=True)
    pd.testing.assert_frame_equal(rounds, one_process_rounds, check_exact=True)
