"""Drivers that die at every step: no reader sees a trial twice, and the next driver puts all in order."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow.fs import LocalFileSystem

from harness.store.experiment import Experiment
from harness.store.object_storage import ObjectStorage
from harness.store.storage import LocalStorage

STORAGE_STEPS = {"write", "create", "move", "delete"}
OBJECT_STEPS = {"open_output_stream", "copy_file", "delete_file"}
TRIALS = {f"t{n}" for n in range(6)}


class Death(BaseException):
    """The process is gone; nothing that follows has any effect."""


class Mortal:
    """Passes on every call until the fatal step, and none from then on.

    Args:
        inner: A storage, or the file system of an object store.
        steps: Names of the calls that change files; the fatal one is the `fatal`-th of these. It has no
            effect, but for a write, which leaves half a temporary file.
    """

    def __init__(self, inner, steps, fatal):
        self._inner, self._steps, self._fatal = inner, steps, fatal
        self.count = 0
        self.dead = False

    def __getattr__(self, name):
        attribute = getattr(self._inner, name)
        if not callable(attribute):
            return attribute

        def call(*args, **kwargs):
            if self.dead:
                raise Death
            if name in self._steps:
                self.count += 1
                if self.count == self._fatal:
                    self.dead = True
                    if name == "write":
                        folder = args[0].rpartition("/")[0]
                        self._inner.write(f"{folder}/.tmp-dead".lstrip("/"), b"half")
                    raise Death
            return attribute(*args, **kwargs)

        return call


def mortal_storage(kind, root, fatal):
    """Return a storage that dies, and what counts its steps."""
    if kind == "local":
        mortal = Mortal(LocalStorage(root), STORAGE_STEPS, fatal)
        return mortal, mortal
    mortal = Mortal(LocalFileSystem(), OBJECT_STEPS, fatal)
    return ObjectStorage(mortal, str(root), uri=str(root)), mortal


def retry(experiment, rows_of):
    experiment.commit([rows_of("t1", attempts=2), rows_of("t4", attempts=2), rows_of("new", federation="g")])


def compact(experiment, rows_of):
    experiment.recover()
    experiment.compact_if_needed(1)


def widen(experiment, rows_of):
    experiment.recover()


def recover(experiment, rows_of):
    experiment.recover()


def commit(experiment, rows_of):
    experiment.commit([rows_of("new", federation="g"), rows_of("newer", federation="g")])


CHANGES = {change.__name__: change for change in (retry, compact, widen, commit)}


def columns_of(change):
    return {"attack_lr": "float", "attack_steps": "int"} if change is widen else {"attack_steps": "int"}


def resolve(spec):
    return {"attack_lr": 0.5}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return tmp_path_factory.mktemp("template") / "x"


@pytest.fixture
def stored(template, rows_of):
    """A folder with six trials in three files of every table; t1 and t4 failed."""
    if not template.exists():
        experiment = Experiment.open(template, columns=columns_of(None))
        with experiment.lock():
            for first in (0, 2, 4):
                experiment.commit(
                    [
                        rows_of(
                            f"t{n}",
                            status="failed" if n in (1, 4) else "complete",
                            federation=f"f{first}",
                            attack_steps=n,
                        )
                        for n in (first, first + 1)
                    ]
                )
    return template


def run(change, root, rows_of, *, kind, fatal=10_000):
    """Make a change with a driver that dies at the given step; return whether it did."""
    storage, mortal = mortal_storage(kind, root, fatal)
    experiment = Experiment(storage, columns=columns_of(change), resolve=resolve)
    try:
        with experiment.lock():
            change(experiment, rows_of)
    except Death:
        pass
    for lock in root.glob(".lock-*"):  # of this process, which is alive after all
        lock.unlink()
    return mortal.dead


def ids(root, table, key="trial_id"):
    found = []
    for path in (root / table).glob("*.parquet"):
        if not path.name.startswith("."):
            found += pq.ParquetFile(path).read(columns=[key]).column(key).to_pylist()
    return Counter(found)


def check_readable(root):
    """What a reader sees at any moment: whole files, and no trial twice."""
    assert set(ids(root, "trials").values()) <= {1}
    assert max(ids(root, "reconstructions").values(), default=0) <= 2


def check_whole(root):
    """What must hold after recovery: every trial once, with its rows in the other tables and no others."""
    columns = ["trial_id", "status", "federation_key", "attack_steps"]
    trials = pd.read_parquet(root / "trials", columns=columns)
    assert sorted(trials.trial_id) == sorted(set(trials.trial_id))
    assert set(trials.trial_id) >= TRIALS
    complete = set(trials.trial_id[trials.status == "complete"])
    assert complete >= TRIALS - {"t1", "t4"}
    assert ids(root, "reconstructions") == dict.fromkeys(complete, 2)
    assert ids(root, "traces") == dict.fromkeys(complete, 1)
    assert ids(root, "rounds", "federation_key") == dict.fromkeys(trials.federation_key, 2)
    steps = trials.set_index("trial_id").attack_steps
    assert all(steps[f"t{n}"] == n for n in (0, 2, 3, 5))
    hidden = [path.name for path in root.rglob(".*") if path.is_file()]
    assert hidden == []


def copy(template, place):
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(template, place)
    return place


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("kind", ["local", "object"])
def test_a_driver_may_die_at_any_step(kind, change, stored, tmp_path, rows_of):
    fatal, died = 0, True
    while died:
        fatal += 1
        root = copy(stored, tmp_path / "x")
        died = run(change, root, rows_of, kind=kind, fatal=fatal)
        check_readable(root)
        after = widen if change is widen else recover
        assert not run(after, root, rows_of, kind=kind)
        check_whole(root)
    assert fatal > 6  # the loop ended because the change was made, and it had steps to die at


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(
    change=st.sampled_from(list(CHANGES.values())),
    kind=st.sampled_from(["local", "object"]),
    deaths=st.lists(st.integers(3, 30), min_size=2, max_size=4),
)
def test_recovery_itself_may_die(change, kind, deaths, stored, rows_of):
    root = copy(stored, stored.with_name("y"))
    for fatal in deaths:
        run(change, root, rows_of, kind=kind, fatal=fatal)
        check_readable(root)
        change = widen
    assert not run(widen, root, rows_of, kind=kind)
    check_whole(root)


BUSY = """
import sys
from harness.store.experiment import Experiment, TrialRows

def rows(trial, turn):
    row = {"trial_id": trial, "status": "complete", "spec": "{}", "attempts": turn, "federation_key": trial}
    image = {"trial_id": trial, "target_id": "a", "png": {"bytes": bytes(1000), "path": None}}
    return TrialRows(row, [image, image], [], [{"federation_key": trial, "round": 0}])

experiment = Experiment.open(sys.argv[1])
with experiment.lock():
    experiment.recover()
    for turn in range(int(sys.argv[2])):
        experiment.commit([rows(f"t{(turn + k) % 9}", turn) for k in (0, 2)])
        if turn == 0:
            print("begun", flush=True)
        experiment.compact_if_needed(3)
"""


def busy(root, turns=1_000_000):
    command = [sys.executable, "-c", BUSY, str(root), str(turns)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_driver_that_is_killed(tmp_path):
    draw = random.Random(7)
    for _ in range(3):
        with busy(tmp_path / "x") as driver:
            assert driver.stdout.readline() == "begun\n"
            time.sleep(draw.uniform(0.05, 0.8))
            driver.send_signal(signal.SIGKILL)
        check_readable(tmp_path / "x")
    experiment = Experiment.open(tmp_path / "x")
    with experiment.lock():
        experiment.recover()
        statuses = experiment.statuses()
    assert len(statuses) > 1
    assert ids(tmp_path / "x", "trials") == dict.fromkeys(statuses, 1)
    assert ids(tmp_path / "x", "reconstructions") == dict.fromkeys(statuses, 2)
    assert ids(tmp_path / "x", "rounds", "federation_key") == dict.fromkeys(statuses, 1)


def test_readers_beside_a_busy_driver(tmp_path):
    """pandas and DuckDB may find a listed file gone, which is an error to try again, but no trial twice."""
    root, reads = tmp_path / "x", Counter()
    ended = threading.Event()

    def by_pandas():
        return pd.read_parquet(root / "trials", columns=["trial_id"]).trial_id.tolist()

    def by_duckdb():
        return [
            row[0]
            for row in duckdb.connect().sql(f"select trial_id from '{root}/trials/*.parquet'").fetchall()
        ]

    def by_us():
        return list(Experiment.open(root).statuses())

    def watch(read):
        while not ended.is_set():
            try:
                seen = read()
            except (OSError, duckdb.Error):
                continue
            except pa.ArrowInvalid as error:
                if "No match for FieldRef" not in str(error):  # pandas, in a folder without files
                    raise
                continue
            reads[read.__name__] += 1
            if len(seen) != len(set(seen)):
                reads["twice"] += 1

    with busy(root, turns=15) as driver:
        assert driver.stdout.readline() == "begun\n"
        threads = [threading.Thread(target=watch, args=(read,)) for read in (by_pandas, by_duckdb, by_us)]
        for thread in threads:
            thread.start()
        driver.wait()
        ended.set()
        for thread in threads:
            thread.join()
    assert driver.returncode == 0
    assert reads.keys() == {"by_pandas", "by_duckdb", "by_us"}
    assert sorted(by_pandas()) == sorted(by_duckdb()) == sorted(f"t{n}" for n in range(9))
