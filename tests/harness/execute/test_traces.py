"""Trial histories: which restart a snapshot belongs to, its objective, and how close it was."""

from __future__ import annotations

import json

import pandas as pd
import pytest


def test_every_snapshot_says_its_restart_and_how_close_it_is(rows_of, folder):
    rows = rows_of(
        """
        defaults:
          data: {name: digits, size: 8}
          model: {name: lenet, convs: 2}
          federation: {clients: 4, rounds: 0, batch_size: 2}
          targets: 2
        matrix:
          attack:
            - {name: inverting_gradients, iterations: 4, restarts: 3, total_variation: 0.1, init: mean,
               init_jitter: 0.05}
        """
    )
    traces = pd.read_parquet(folder / "traces")
    images = pd.read_parquet(folder / "reconstructions")

    assert set(rows["status"]) == {"complete"}
    assert traces.groupby(["target_id", "restart"]).size().tolist() == [5] * 6
    assert traces.groupby("target_id")["iteration"].apply(list).tolist() == [list(range(15))] * 2
    terms = pd.DataFrame(traces["objective"].map(json.loads).tolist())
    expected = terms["matching"] + 0.1 * terms["total_variation"]
    assert terms["total"].tolist() == pytest.approx(expected.tolist())

    for target, history in traces.assign(matching=terms["matching"]).groupby("target_id"):
        ends = history.groupby("restart").last()
        best = ends.loc[ends["matching"].idxmin()]
        pairs = images[images["target_id"] == target]
        assert best["psnr_db"] == pytest.approx(pairs["psnr_db"].mean(), rel=1e-6)
        assert best["mse"] == pytest.approx(pairs["mse"].mean(), rel=1e-6)
