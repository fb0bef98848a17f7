from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from fl.errors import StoreError
from harness.store.object_storage import ObjectStorage
from harness.store.storage import LocalStorage, MissingFileError, open_storage, sweep


def test_what_is_written_is_read(storage):
    storage.write("a/b.bin", b"one")
    storage.write("a/b.bin", b"three")
    assert storage.read("a/b.bin") == b"three"
    assert storage.size("a/b.bin") == 5
    assert storage.exists("a/b.bin")
    assert storage.names("a") == ["b.bin"]
    with storage.open("a/b.bin") as file:
        file.seek(2)
        assert file.read() == b"ree"


def test_absent_files(storage):
    assert storage.names() == []
    assert storage.names("nowhere") == []
    assert not storage.exists("a")
    storage.prepare("folder")
    assert not storage.exists("folder")
    storage.delete("a")
    assert not storage.touch("a")
    for action in (storage.read, storage.size, storage.modified, storage.open):
        with pytest.raises(MissingFileError, match="expected the file"):
            action("folder/a")
    with pytest.raises(MissingFileError):
        storage.move("a", "b")


def test_move_replaces_and_delete_removes(storage):
    storage.write("a", b"new")
    storage.write("b", b"old")
    storage.move("a", "b")
    assert storage.names() == ["b"]
    assert storage.read("b") == b"new"
    storage.delete("b")
    assert storage.names() == []


def test_of_many_creators_one_succeeds(tmp_path):
    storage, winners = LocalStorage(tmp_path / "s"), []
    start = threading.Barrier(16)

    def create(number):
        start.wait()
        if storage.create("lock", str(number).encode()):
            winners.append(number)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert storage.read("lock") == str(winners[0]).encode()


def test_create_keeps_what_is_there(storage):
    assert storage.create("lock", b"first")
    assert not storage.create("lock", b"second")
    assert storage.read("lock") == b"first"


def test_touch_renews_the_time(storage):
    storage.write("a", b"x")
    os.utime(storage.locate("a"), (1000, 1000))
    assert storage.modified("a") == 1000
    assert storage.touch("a")
    assert storage.modified("a") == pytest.approx(time.time(), abs=60)
    assert storage.read("a") == b"x"


def test_private_folders_are_the_users_alone(tmp_path):
    storage = open_storage(tmp_path / "above" / "private", private=True)
    before = os.umask(0o022)
    try:
        storage.write("ab/c.bin", b"x")
    finally:
        os.umask(before)
    modes = {
        name: stat.S_IMODE((tmp_path / "above" / name).stat().st_mode) for name in ("private", "private/ab")
    }
    assert modes == {"private": 0o700, "private/ab": 0o700}
    assert stat.S_IMODE((tmp_path / "above").stat().st_mode) == 0o755


def test_a_sweep_removes_old_temporary_files_only(storage):
    for name in (".tmp-1-old", ".tmp-1-young", "kept.bin"):
        storage.write(f"a/{name}", b"x")
    os.utime(storage.locate("a/.tmp-1-old"), (1000, 1000))
    assert sweep(storage, "a", older_than_s=3600) == 1
    assert storage.names("a") == [".tmp-1-young", "kept.bin"]
    assert sweep(storage, "a") == 1
    assert storage.names("a") == ["kept.bin"]


def test_a_folder_that_is_a_file_is_reported(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match=r"cannot make folder .*file.*choose another folder"):
        LocalStorage(tmp_path / "file" / "store").write("a", b"x")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    """A file-size limit makes the kernel refuse the write half-way, as a full disk does."""
    storage = LocalStorage(tmp_path)
    storage.write("a.bin", b"old")
    script = f"""
import resource, signal
from harness.store.storage import LocalStorage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
LocalStorage({str(tmp_path)!r}).write("a.bin", bytes(10_000))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "StoreError: cannot write" in done.stderr
    assert "a.bin" in done.stderr
    assert "free disk space" in done.stderr
    assert storage.names() == ["a.bin"]
    assert storage.read("a.bin") == b"old"


def test_uris(tmp_path):
    open_storage(f"file://{tmp_path}/here").write("a", b"x")
    assert (tmp_path / "here" / "a").read_bytes() == b"x"
    assert isinstance(open_storage("gs://anonymous@bucket/folder"), ObjectStorage)
    with pytest.raises(StoreError, match="nonsense://x"):
        open_storage("nonsense://x")
