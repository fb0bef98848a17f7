from __future__ import annotations

import pandas as pd
import pytest

from fl.errors import StoreError, UsageError
from harness.export import export
from harness.results import load

MATRIX = """
seeds: [0, 1]
matrix:
  defense: [none, {name: gaussian, noise_budget: [0.001, 0.1]}]
  attack: [{name: idlg, iterations: 2}, random_guess]
"""
PUBLIC = {"bytes": b"public picture", "path": None}


def outcome(spec, picture=PUBLIC):
    return {
        "psnr_db": 20.123456789012345 + spec.seed,
        "null_reasons": '{"lpips": "no, \\"weights\\""}',
        "rounds": [{"round": 0, "accuracy": 0.1}],
        "reconstructions": [
            {"target_id": "a/b", "reconstruction_index": n, "finite": True, "png": picture, "original": None}
            for n in (0, 1)
        ],
        "traces": [
            {"target_id": "t0", "iteration": 3, "restart": restart, "png": picture} for restart in (0, 1)
        ],
    }


@pytest.fixture
def results(store_experiment):
    return load(store_experiment(MATRIX, outcome), images=True)


@pytest.fixture
def private(store_experiment):
    """Results whose pictures lie in the private folder."""
    where = {"bytes": None, "path": "private/images/one.png"}
    folder = store_experiment(MATRIX, lambda spec: outcome(spec, where))
    (folder / "private" / "images").mkdir(parents=True)
    (folder / "private" / "images" / "one.png").write_bytes(b"private picture")
    return load(folder, images=True)


def contents(folder):
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def test_csv_holds_what_the_tables_hold(results, tmp_path):
    done = export(results, tmp_path / "out", form="csv")
    assert done.rows == {"trials": 12, "rounds": 6, "traces": 24, "reconstructions": 24}
    for name in done.rows:
        stored, read = getattr(results, name), pd.read_csv(tmp_path / "out" / f"{name}.csv")
        assert list(read.columns) == list(stored.columns)
        assert len(read) == len(stored)
    trials = pd.read_csv(tmp_path / "out" / "trials.csv")
    assert trials.psnr_db.tolist() == results.trials.psnr_db.tolist()
    assert trials.null_reasons.tolist() == results.trials.null_reasons.tolist()


def test_csv_points_to_pictures_of_their_own(results, tmp_path):
    done = export(results, tmp_path / "out", form="csv")
    assert (done.pictures, done.private, done.left_out) == (48, 0, 0)
    places = [
        place
        for name in ("reconstructions", "traces")
        for place in pd.read_csv(tmp_path / "out" / f"{name}.csv")["png"]
    ]
    assert len(set(places)) == 48
    assert {(tmp_path / "out" / place).read_bytes() for place in places} == {b"public picture"}
    assert pd.read_csv(tmp_path / "out" / "reconstructions.csv")["original"].isna().all()


def test_partitioned_parquet_is_read_as_a_whole_and_by_folder(results, tmp_path):
    export(results, tmp_path / "out", form="parquet", partition_by=["dataset", "defense"])
    trials = pd.read_parquet(tmp_path / "out" / "trials")
    assert sorted(trials.trial_id) == sorted(results.trials.trial_id)
    assert set(trials.columns) == set(results.trials.columns)
    own = pd.read_parquet(tmp_path / "out" / "trials" / "dataset=digits" / "defense=gaussian")
    assert sorted(own.trial_id) == sorted(results.trials.trial_id[results.trials.defense == "gaussian"])
    images = pd.read_parquet(tmp_path / "out" / "reconstructions")
    assert {cell["bytes"] for cell in images.png} == {b"public picture"}
    assert (tmp_path / "out" / "rounds" / "dataset=digits" / "defense=none").is_dir()


def test_duckdb_reads_the_folders(results, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    export(results, tmp_path / "out", form="parquet", partition_by=["defense", "noise_budget"])
    found = duckdb.sql(
        f"select defense, noise_budget, count(*) from read_parquet('{tmp_path}/out/trials/**/*.parquet', "
        "hive_partitioning = true) group by all order by all"
    ).fetchall()
    assert [(defense, float(budget), count) for defense, budget, count in found] == [
        ("gaussian", 0.001, 4),
        ("gaussian", 0.1, 4),
        ("none", 0.0, 4),
    ]


def test_types_hold_for_columns_that_are_all_null(results, tmp_path):
    import pyarrow.parquet as pq

    export(results, tmp_path / "out", form="parquet")
    schema = pq.read_schema(tmp_path / "out" / "trials" / "part-0.parquet")
    kinds = {name: str(schema.field(name).type) for name in ("lpips", "seed", "error", "patient_overlap")}
    assert kinds == {"lpips": "double", "seed": "int64", "error": "string", "patient_overlap": "bool"}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_private_pictures_are_left_out(private, tmp_path, form):
    done = export(private, tmp_path / "out", form=form)
    assert (done.pictures, done.private, done.left_out) == (0, 0, 48)
    assert not any(b"private picture" in content for content in contents(tmp_path / "out"))
    assert not (tmp_path / "out" / "pictures").exists()


def test_private_pictures_go_along_when_asked_for_into_a_folder_of_ones_own(private, tmp_path):
    done = export(private, tmp_path / "out", form="csv", include_private=True)
    assert (done.private, done.left_out) == (48, 0)
    assert contents(tmp_path / "out").count(b"private picture") == 48
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_a_private_picture_that_is_gone_leaves_nothing_behind(private, tmp_path):
    (tmp_path / "results" / "made" / "private" / "images" / "one.png").unlink()
    with pytest.raises(StoreError, match=r"one\.png"):
        export(private, tmp_path / "exports" / "out", form="csv", include_private=True)
    assert list((tmp_path / "exports").iterdir()) == []


def test_results_without_images_have_no_pictures(private, store_experiment, tmp_path):
    done = export(load(private.path), tmp_path / "out", form="parquet")
    assert (done.pictures, done.private) == (0, 0)
    assert pd.read_parquet(tmp_path / "out" / "reconstructions")["png"].isna().all()


@pytest.mark.parametrize(
    ("form", "keys", "message"),
    [
        ("parquet", ["defence"], "Did you mean 'defense'"),
        ("parquet", ["png"], "got 'png'"),
        ("csv", ["defense"], "--format parquet"),
    ],
)
def test_columns_to_partition_by_are_checked(results, tmp_path, form, keys, message):
    with pytest.raises(UsageError, match=message):
        export(results, tmp_path / "out", form=form, partition_by=keys)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(results, tmp_path):
    (tmp_path / "out").mkdir()
    export(results, tmp_path / "out", form="csv")
    with pytest.raises(UsageError, match="a new or an empty folder"):
        export(results, tmp_path / "out", form="csv")
