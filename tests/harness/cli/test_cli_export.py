"""`bench export`: what a run stored, for other tools."""

from __future__ import annotations

import pandas as pd

MATRIX = """
matrix:
  attack: [{name: idlg, iterations: 2}, random_guess]
"""


def outcome(spec):
    private = {"bytes": None, "path": "private/images/one.png"}
    image = {"target_id": "t0", "reconstruction_index": 0, "png": private}
    return {"psnr_db": 9.0, "reconstructions": [image]}


def test_tables_are_written_and_what_is_private_is_said(bench, store_experiment, tmp_path):
    folder = store_experiment(MATRIX, outcome)
    done = bench("export", folder, tmp_path / "out")
    assert done.code == 0
    assert "2 trials" in done.err
    assert "left out 2 pictures of private data" in done.err
    assert len(pd.read_csv(tmp_path / "out" / "trials.csv")) == 2
    (folder / "private" / "images").mkdir(parents=True)
    (folder / "private" / "images" / "one.png").write_bytes(b"x")
    done = bench("export", folder, tmp_path / "all", "--format", "parquet", "--include-private")
    assert "it holds 2 pictures of private data" in done.err
    done = bench("export", folder, tmp_path / "none", "--no-pictures", "--include-private")
    assert (done.code, "private" in done.err) == (0, False)


def test_usage_errors(bench, store_experiment, tmp_path):
    folder = store_experiment(MATRIX, outcome)
    assert bench("export", folder, folder).code == 2
    assert bench("export", folder, tmp_path / "x", "--partition-by", "attack").code == 2
    outcome_ = bench("export", folder, tmp_path / "x", "--format", "parquet", "--partition-by", "atack")
    assert (outcome_.code, "Did you mean 'attack'" in outcome_.err) == (2, True)
    assert bench("export", tmp_path / "nothing", tmp_path / "x").code == 2
