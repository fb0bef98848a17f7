from __future__ import annotations

import json
import subprocess
import sys

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

from fl.errors import LockHeldError, StoreError
from harness.store.experiment import Experiment
from harness.store.schema import TABLES, core_schema


@pytest.fixture
def experiment(storage):
    return Experiment(storage)


def resolve(spec):
    return {"attack_lr": 0.1, "trial_name": json.loads(spec)["trial"]}


def read(storage, table="trials"):
    """Return a table as its readers outside see it; both must agree."""
    frame = pd.read_parquet(f"{storage.uri}/{table}")
    pattern = f"{storage.uri}/{table}/*.parquet"
    assert duckdb.sql(f"select count(*) from '{pattern}'").fetchall() == [(len(frame),)]
    return frame


def files(storage, table="trials"):
    return [name for name in storage.names(table) if name.endswith(".parquet")]


def test_commit_and_read_back(storage, experiment, rows_of):
    with experiment.lock():
        experiment.recover()
        experiment.commit([rows_of("b"), rows_of("a", lpips=0.25)])
        experiment.commit([rows_of("c", status="failed")])
        experiment.commit([])
        assert experiment.statuses() == {"a": "complete", "b": "complete", "c": "failed"}
    assert experiment.statuses() == {"a": "complete", "b": "complete", "c": "failed"}
    trials = read(storage).set_index("trial_id")
    assert trials.loc["a", "lpips"] == 0.25
    assert trials.loc["c", "error"] == "out of luck"
    assert sorted(read(storage, "reconstructions").trial_id) == ["a", "a", "b", "b"]
    assert list(read(storage, "rounds")["round"]) == [0, 1]
    assert len(files(storage)) == 2
    assert experiment.row("a")["lpips"] == 0.25
    assert experiment.row("c")["status"] == "failed"
    assert experiment.row("x") is None


def test_nothing_is_made_before_the_lock(tmp_path):
    experiment = Experiment.open(tmp_path / "results" / "x")
    assert experiment.statuses() == {}
    assert experiment.row("a") is None
    assert experiment.manifest() is None
    assert not (tmp_path / "results").exists()


def test_an_empty_first_column_does_not_poison_the_read(storage, experiment, rows_of):
    with experiment.lock():
        for trial in "abc":
            experiment.commit([rows_of(trial, lpips=None if trial == "a" else 0.5)])
    frame = read(storage)
    assert frame.lpips.dtype == "float64"
    assert frame.lpips.sum() == 1.0
    pattern = f"{storage.uri}/trials/*.parquet"
    assert duckdb.sql(f"select sum(lpips), count(floor) from '{pattern}'").fetchall() == [(1.0, 0)]


def test_all_files_have_the_schema_and_say_its_version(storage, experiment, rows_of, png):
    with experiment.lock():
        experiment.commit([rows_of("a")])
    for table in TABLES:
        (file,) = files(storage, table)
        stored = pq.read_schema(f"{storage.uri}/{table}/{file}")
        assert stored.remove_metadata().equals(core_schema(table).arrow)
        assert stored.metadata[b"leakbench.schema_version"] == b"1"
        pictured = b"huggingface" in stored.metadata
        assert pictured == (table in {"reconstructions", "traces"})
    (picture, _) = read(storage, "reconstructions").png
    assert picture == {"bytes": png, "path": None}


def test_files_are_named_by_their_trials_whatever_the_order(storage, tmp_path, rows_of):
    names = []
    for place, order in (("one", "ab"), ("two", "ba")):
        experiment = Experiment.open(tmp_path / place)
        with experiment.lock():
            experiment.commit([rows_of(trial) for trial in order])
        names.append(sorted(path.name for path in (tmp_path / place / "trials").iterdir()))
    assert names[0] == names[1]
    assert len(names[0]) == 1


def test_a_retried_trial_is_one_row(storage, experiment, rows_of):
    with experiment.lock():
        experiment.commit([rows_of("a"), rows_of("b", status="failed"), rows_of("c")])
        experiment.commit([rows_of("b", attempts=2), rows_of("d")])
        assert experiment.statuses() == dict.fromkeys("abcd", "complete")
        experiment.commit([rows_of("b", attempts=3, images=1)])
    frame = read(storage).set_index("trial_id")
    assert sorted(frame.index) == list("abcd")
    assert frame.attempts["b"] == 3
    assert sorted(read(storage, "reconstructions").trial_id) == list("aabccdd")
    assert sorted(read(storage, "traces").trial_id) == list("abcd")
    assert len(read(storage, "rounds")) == 2


def test_rounds_are_stored_once_per_federation(storage, experiment, rows_of):
    with experiment.lock():
        experiment.commit(
            [rows_of("a", federation="f"), rows_of("b", federation="f"), rows_of("c", federation="g")]
        )
        experiment.commit([rows_of("d", federation="g"), rows_of("e", federation="h")])
    assert sorted(read(storage, "rounds").federation_key) == list("ffgghh")


def test_a_matrix_that_gains_columns(storage, rows_of):
    first = Experiment(storage, columns={"attack_steps": "int"})
    with first.lock():
        first.commit([rows_of("a", attack_steps=3)])
        first.commit([rows_of("b", attack_steps=4, status="failed")])
    wide = Experiment(
        storage, columns={"attack_steps": "float", "attack_lr": "float", "trial_name": "str"}, resolve=resolve
    )
    with wide.lock():
        wide.recover()
        before = read(storage).set_index("trial_id")
        assert list(before.attack_lr) == [0.1, 0.1]
        assert dict(before.trial_name) == {"a": "a", "b": "b"}
        assert dict(before.attack_steps) == {"a": 3.0, "b": 4.0}
        wide.commit([rows_of("c", attack_lr=0.5, attack_steps=0.5)])
    after = read(storage).set_index("trial_id")
    assert dict(after.attack_lr) == {"a": 0.1, "b": 0.1, "c": 0.5}
    assert set(after.defense) == {"none"}
    assert len(after.groupby("defense")) == 1


def test_a_matrix_that_loses_columns_keeps_the_stored_ones(storage, rows_of):
    first = Experiment(storage, columns={"attack_steps": "int"})
    with first.lock():
        first.commit([rows_of("a", attack_steps=3)])
    narrow = Experiment(storage)
    with narrow.lock():
        narrow.commit([rows_of("b")])
    steps = read(storage).set_index("trial_id").attack_steps
    assert steps["a"] == 3
    assert pd.isna(steps["b"])


def test_compaction_merges_and_changes_nothing_else(storage, experiment, rows_of):
    with experiment.lock():
        for number in range(6):
            experiment.commit([rows_of(f"t{number}", federation=f"f{number}", lpips=number / 8)])
        before = {table: read(storage, table) for table in TABLES}
        experiment.compact_if_needed(6)
        assert len(files(storage)) == 6
        experiment.compact_if_needed(5)
        assert [len(files(storage, table)) for table in TABLES] == [1, 1, 1, 1]
        for table, frame in before.items():
            key = core_schema(table).key
            after = read(storage, table)
            order = [key, *([] if table == "trials" else [after.columns[1], after.columns[2]])]
            pd.testing.assert_frame_equal(
                after.sort_values(order, ignore_index=True), frame.sort_values(order, ignore_index=True)
            )
        experiment.commit([rows_of("t3", lpips=9.0, federation="f3")])
    assert read(storage).set_index("trial_id").lpips["t3"] == 9.0
    assert len(read(storage)) == 6


def test_rows_without_a_trial_are_dropped(storage, experiment, rows_of):
    with experiment.lock():
        experiment.commit([rows_of("a", federation="f"), rows_of("b", federation="g")])
        experiment.commit([rows_of("c", federation="h")])
    for name in files(storage):
        if set(pq.read_table(f"{storage.uri}/trials/{name}")["trial_id"].to_pylist()) == {"c"}:
            storage.delete(f"trials/{name}")
    storage.write("trials/.tmp-1-2", b"half")
    storage.write("reconstructions/.x.parquet.pending", b"half")
    with experiment.lock():
        experiment.recover()
    assert sorted(read(storage, "reconstructions").trial_id) == list("aabb")
    assert sorted(read(storage, "traces").trial_id) == list("ab")
    assert sorted(read(storage, "rounds").federation_key) == list("ffgg")
    assert all(name.endswith(".parquet") for table in TABLES for name in storage.names(table))


def test_a_trial_that_two_drivers_stored_is_kept_once(storage, experiment, rows_of):
    with experiment.lock():
        experiment.commit([rows_of("a"), rows_of("b")])
        for table in TABLES:
            (name,) = files(storage, table)
            storage.write(f"{table}/{'0' * 32}.parquet", storage.read(f"{table}/{name}"))
        experiment.commit([rows_of("c")])
        experiment.recover()
    assert sorted(read(storage).trial_id) == list("abc")
    assert sorted(read(storage, "reconstructions").trial_id) == list("aabbcc")
    assert len(read(storage, "rounds")) == 2


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("damage", ["short", "flipped", "empty", "foreign"])
def test_a_damaged_file_is_named_and_nothing_is_harmed(storage, experiment, rows_of, table, damage):
    with experiment.lock():
        experiment.commit([rows_of("a")])
    (name,) = files(storage, table)
    content = storage.read(f"{table}/{name}")
    key = pq.read_metadata(f"{storage.uri}/{table}/{name}").row_group(0).column(0)
    flipped = bytearray(content)
    flipped[key.data_page_offset + key.total_compressed_size - 1] ^= 0xFF
    damaged = {"short": content[:-10], "flipped": bytes(flipped), "empty": b"", "foreign": b"hello, world"}[
        damage
    ]
    storage.write(f"{table}/{name}", damaged)
    with experiment.lock(), pytest.raises(StoreError, match=rf"damaged file .*{name}.*delete it"):
        experiment.recover()
    assert storage.read(f"{table}/{name}") == damaged
    if table == "trials":
        with pytest.raises(StoreError, match=name):
            experiment.statuses()
        storage.delete(f"{table}/{name}")
        with experiment.lock():
            experiment.commit([rows_of("a")])
        assert experiment.statuses() == {"a": "complete"}


def test_files_of_others_and_of_the_future_are_refused(storage, experiment, rows_of):
    with experiment.lock():
        experiment.commit([rows_of("a")])
    (name,) = files(storage)
    path = f"{storage.uri}/trials/{name}"
    ours = pq.read_table(path)
    pq.write_table(
        ours.replace_schema_metadata({**ours.schema.metadata, b"leakbench.schema_version": b"2"}), path
    )
    with experiment.lock(), pytest.raises(StoreError, match=r"schema version 2.*Upgrade leakbench"):
        experiment.recover()
    pq.write_table(ours.replace_schema_metadata({}), path)
    with experiment.lock(), pytest.raises(StoreError, match="expected rows of trials"):
        experiment.recover()


def test_two_rows_with_one_id_are_refused(storage, experiment, rows_of):
    with experiment.lock():
        with pytest.raises(ValueError, match="one row per trial"):
            experiment.commit([rows_of("a"), rows_of("a")])
        with pytest.raises(ValueError, match="got also wrong"):
            experiment.commit([rows_of("a", wrong=1)])
        experiment.commit([rows_of("a")])
    assert list(read(storage).trial_id) == ["a"]


def test_the_manifest_keeps_its_history(storage, experiment):
    with experiment.lock():
        for number in range(3):
            experiment.begin({"matrix": f"v{number}", "environment": {"python": "3"}})
    manifest = experiment.manifest()
    assert manifest["matrix"] == "v2"
    assert [run["matrix"] for run in manifest["history"]] == ["v0", "v1"]
    assert all("history" not in run and run["begun"] for run in manifest["history"])
    storage.write("manifest.json", b"{")
    with pytest.raises(StoreError, match=r"manifest\.json"):
        experiment.manifest()


def test_a_second_driver_cannot_write(storage, experiment):
    with experiment.lock(), pytest.raises(LockHeldError), Experiment(storage).lock():
        pass


def test_writing_without_the_lock_is_a_mistake(experiment, rows_of):
    with pytest.raises(AssertionError, match="lock"):
        experiment.commit([rows_of("a")])


def test_a_driver_that_lost_its_lock_writes_nothing(storage, experiment, rows_of):
    with experiment.lock():
        experiment.commit([rows_of("a")])
        for name in storage.names():
            if name.startswith(".lock-"):
                storage.delete(name)
        for write in (
            lambda: experiment.commit([rows_of("b")]),
            experiment.recover,
            lambda: experiment.begin({}),
        ):
            with pytest.raises(LockHeldError, match="took over"):
                write()
    assert list(read(storage).trial_id) == ["a"]


def test_an_unwritable_folder(tmp_path):
    (tmp_path / "results").write_text("in the way")
    with (
        pytest.raises(StoreError, match=r"results.*choose another folder"),
        Experiment.open(tmp_path / "results" / "x").lock(),
    ):
        pass


def test_reading_and_writing_import_no_torch(tmp_path):
    script = f"""
import sys
from harness.store.experiment import Experiment, TrialRows
experiment = Experiment.open({str(tmp_path)!r})
with experiment.lock():
    experiment.recover()
    experiment.begin({{}})
    experiment.commit([TrialRows({{"trial_id": "a", "status": "complete", "spec": "{{}}"}})])
    experiment.compact_if_needed(0)
assert experiment.statuses() == {{"a": "complete"}}
assert not {{"torch", "ray"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
