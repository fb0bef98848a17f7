from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from fl.errors import LockHeldError
from harness.store.lock import ExperimentLock
from harness.store.storage import LocalStorage

FIRST = ".lock-000001"

HOLD = """
import sys
from harness.store.lock import ExperimentLock
from harness.store.storage import LocalStorage
ExperimentLock(LocalStorage(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def driver(storage):
    """Another process that holds the lock until it is killed."""
    command = [sys.executable, "-c", HOLD, storage.uri]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def age(storage, seconds, name=FIRST):
    then = time.time() - seconds
    os.utime(storage.locate(name), (then, then))


def forge(storage, name=FIRST, **changes):
    """Rewrite a lock file as if somebody else held it."""
    holder = json.loads(storage.read(name))
    storage.write(name, json.dumps(holder | changes).encode())


def test_a_second_driver_is_refused_and_told_who_holds(storage, driver):
    with pytest.raises(LockHeldError, match=rf"in use by process {driver.pid} on .*last sign of life"):
        ExperimentLock(storage).acquire()
    assert LockHeldError("").exit_code == 2


def test_a_second_lock_of_the_same_process_is_refused(storage):
    with ExperimentLock(storage), pytest.raises(LockHeldError, match="in use by"):
        ExperimentLock(storage).acquire()
    with ExperimentLock(storage):
        pass
    assert storage.names() == []


def test_a_killed_driver_is_replaced_at_once(storage, driver):
    driver.kill()
    driver.wait()
    with ExperimentLock(storage) as lock:
        lock.verify()
        assert storage.names() == [".lock-000002"]
    assert storage.names() == []


def test_a_silent_driver_elsewhere_is_replaced_when_stale(storage, driver):
    forge(storage, space="another machine", host="node7", pid=1)
    age(storage, 50)
    with pytest.raises(LockHeldError, match="process 1 on node7"):
        ExperimentLock(storage).acquire()
    age(storage, 61)
    with ExperimentLock(storage):
        pass


def test_a_process_that_only_has_the_number_of_the_dead_one(storage, driver):
    forge(storage, born="0")
    with ExperimentLock(storage):
        pass


def test_a_file_that_is_still_being_written_counts_until_stale(storage):
    storage.write(FIRST, b"")
    with pytest.raises(LockHeldError, match="in use by a driver"):
        ExperimentLock(storage).acquire()
    age(storage, 61)
    with ExperimentLock(storage):
        pass


def test_the_heart_beats(storage):
    with ExperimentLock(storage, beat_s=0.02):
        age(storage, 1000)
        deadline = time.time() + 10
        while time.time() - storage.modified(FIRST) > 500 and time.time() < deadline:
            time.sleep(0.01)
        assert time.time() - storage.modified(FIRST) < 500


@pytest.mark.parametrize("beat_s", [0.01, 1000.0])
def test_who_lost_the_lock_stops(storage, beat_s):
    lock = ExperimentLock(storage, beat_s=beat_s)
    lock.acquire()
    forge(storage, space="as seen from another machine")
    age(storage, 1000)
    while storage.exists(FIRST):  # its own heart may beat in between
        age(storage, 1000)
        try:
            with ExperimentLock(storage):
                pass
        except LockHeldError:
            continue
    with pytest.raises(LockHeldError, match="took over"):
        lock.verify()
    lock.release()


def test_of_many_that_find_a_dead_driver_one_takes_over(tmp_path):
    storage = LocalStorage(tmp_path)
    with ExperimentLock(storage):
        content = json.loads(storage.read(FIRST)) | {"born": "0"}
    for _ in range(10):
        storage.write(FIRST, json.dumps(content).encode())
        winners, start = [], threading.Barrier(8)

        def take(start=start, winners=winners):
            lock = ExperimentLock(storage)
            start.wait()
            try:
                lock.acquire()
            except LockHeldError:
                return
            winners.append(lock)

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) == 1
        winners[0].verify()
        winners[0].release()
        assert storage.names() == []
