"""What was computed from files is computed again when, and only when, they change."""

import os

import pytest

from fl.data.cache import cache_dir
from fl.data.index_cache import cached


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """From files and a purpose to how often they have been read; the value is their text."""
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "cache"))
    calls = []

    def ask(*files, purpose="lines"):
        def compute():
            calls.append(files)
            return [file.read_text() if file.is_file() else None for file in files]

        return cached(files, compute, purpose=purpose), len(calls)

    return ask


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("one")
    os.utime(path, ns=(0, 10**9))
    return path


def test_unchanged_files_are_not_read_again(counted, file):
    assert counted(file) == (["one"], 1)
    assert counted(file) == (["one"], 1)


def test_size_and_time_tell_a_change(counted, file):
    counted(file)
    file.write_text("three")
    os.utime(file, ns=(0, 10**9))
    assert counted(file) == (["three"], 2)
    file.write_text("seven")
    os.utime(file, ns=(0, 2 * 10**9))
    assert counted(file) == (["seven"], 3)


def test_a_folder_tells_what_joins_it(counted, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    os.utime(folder, ns=(0, 10**9))
    counted(folder)
    (folder / "new.png").touch()
    assert counted(folder)[1] == 2


def test_a_missing_file_is_a_state(counted, tmp_path):
    absent = tmp_path / "later.csv"
    assert counted(absent) == ([None], 1)
    assert counted(absent) == ([None], 1)
    absent.write_text("here")
    assert counted(absent) == (["here"], 2)


def test_purposes_and_files_do_not_share(counted, file, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("two")
    assert counted(file, purpose="a") == (["one"], 1)
    assert counted(file, purpose="b") == (["one"], 2)
    assert counted(file, other, purpose="a") == (["one", "two"], 3)
    assert counted(file, purpose="a") == (["one"], 3)


def test_errors_are_not_remembered(counted, file):
    def fail():
        raise ValueError("damaged")

    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            cached([file], fail, purpose="lines")
    assert counted(file) == (["one"], 1)


def test_a_broken_cache_is_rebuilt_and_names_no_file(counted, file):
    counted(file)
    (document,) = (cache_dir() / "indexes").iterdir()
    assert "table" not in document.name + document.read_text()
    document.write_text('{"stamps": ')
    assert counted(file) == (["one"], 2)
