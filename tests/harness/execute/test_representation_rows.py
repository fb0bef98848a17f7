"""Defenses that act within the model, from a matrix to rows: bottlenecks and pruned features."""

from __future__ import annotations

import pandas as pd
import pytest

MATRIX = """
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 1, batch_size: 1}
  targets: 2
matrix:
  attacker: [static, adaptive]
  defense:
    - {name: precode, bottleneck: 4}
    - {name: soteria, percent: 50}
    - {name: soteria, percent: 50, variant: ggl}
  attack: [{name: dlg, iterations: 1}, {name: inverting_gradients, iterations: 3}]
include:
  - attack: {name: inverting_gradients, iterations: 2, unroll: true}
    attacker: adaptive
    defense: {grid: [{name: precode, bottleneck: 4}, {name: soteria}]}
    federation: {algorithm: fedavg, clients: 4, rounds: 2, batch_size: 2, local_steps: 2, lr: 0.1}
    observe: {round: 1}
"""
COST = ["wall_s", "cpu_s", "gpu_s", "peak_mem_mib", "attempts", "finished"]


@pytest.fixture
def read(rows_of, folder):
    """Run the matrix and return its rows, and those of its reconstructions."""

    def run():
        rows = rows_of(MATRIX).drop(columns=COST).sort_values("trial_id", ignore_index=True)
        keys = ["trial_id", "target_id", "reconstruction_index"]
        found = pd.read_parquet(folder / "reconstructions").sort_values(keys, ignore_index=True)
        return rows, found

    return run


def test_every_trial_completes_and_the_same_matrix_gives_the_same_rows(read, folder):
    rows, found = read()
    folder.rename(folder.with_name("first"))
    again, found_again = read()

    pd.testing.assert_frame_equal(rows, again, check_exact=True)
    pd.testing.assert_frame_equal(found, found_again, check_exact=True)
    assert len(rows) == 14
    assert rows["psnr_db"].notna().all()
    loop = rows[rows["defense"] == "precode"]
    assert set(loop["engine"]) == {"reference"}  # a model that no formulation knows
    lanes = rows[(rows["defense_variant"] == "ggl") & (rows["attack"] == "inverting_gradients")]
    assert set(lanes["engine"]) != {"reference"}
