"""Data sets that users download: what `bench` says of missing ones, and names with a slash."""

import gzip
import struct

import numpy as np
import pytest

MATRIX = """
version: 1
name: slash
defaults:
  data: {{name: {name}, root: {root}{options}}}
  model: {{name: lenet, convs: 2}}
  federation: {{clients: 2, batch_size: 1}}
  targets: 2
matrix:
  attack: [random_guess, mean_image]
"""


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LEAKBENCH_DATA", raising=False)


def matrix(tmp_path, name, root, options=""):
    path = tmp_path / "slash.yaml"
    path.write_text(MATRIX.format(name=name, root=root, options=options))
    return path


def bloodmnist(root):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, each in (("train", 10), ("val", 2), ("test", 2)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (8 * each, 28, 28, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.repeat(np.arange(8, dtype=np.uint8), each)[:, None]
    root.mkdir()
    np.savez_compressed(root / "bloodmnist.npz", **arrays)


@pytest.mark.parametrize("name", ["mnist", "medmnist/chestmnist"])
@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_missing_data_is_exit_2_with_the_command_that_gets_it(bench, tmp_path, name, command):
    path = matrix(tmp_path, name, tmp_path)
    results = [] if command == "validate" else ["--results", tmp_path / "results"]
    outcome = bench(command, path, *results)
    assert outcome.code == 2
    assert f"{path}:5" in outcome.err
    assert f"`bench data fetch {name}`" in outcome.err


@pytest.mark.parametrize("name", ["cifar10", "medmnist/organamnist"])
def test_a_card_is_shown_without_the_files(bench, name):
    shown = bench("data", "show", name, "--json").json
    assert f"bench data fetch {name}" in shown["problem"]
    assert shown["licence"]
    assert len(shown["classes"]) in (10, 11)
    assert bench("show", "data", name, "--json").json == shown == bench("show", name, "--json").json


def test_the_list_says_what_is_here(bench, tmp_path, monkeypatch):
    bloodmnist(tmp_path / "data")
    monkeypatch.setenv("LEAKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "300")
    lines = bench("data", "list").out.splitlines()
    (here,) = (line for line in lines if line.startswith("medmnist/bloodmnist "))
    (missing,) = (line for line in lines if line.startswith("svhn "))
    assert here.rstrip().endswith("yes")
    assert missing.rstrip().endswith("bench data fetch svhn")
    assert "already on this machine" in bench("data", "fetch", "medmnist/bloodmnist").out


def test_a_set_with_a_slash_in_its_name_runs(bench, tmp_path):
    import pandas as pd

    bloodmnist(tmp_path / "data")
    path = matrix(tmp_path, "medmnist/bloodmnist", tmp_path / "data")
    results = tmp_path / "results"
    assert (
        bench("run", path, "--results", results, "--only", "data=medmnist/*", "--executor", "inline").code
        == 0
    )
    trials = pd.read_parquet(results / "slash" / "trials")
    assert trials["dataset"].tolist() == ["medmnist/bloodmnist"] * 2
    assert trials["status"].tolist() == ["complete"] * 2
    assert "medmnist/bloodmnist" in bench("show", results / "slash", "--json").out


def test_fetching_says_which_option_is_wrong(bench):
    assert "svhn: size: " in bench("data", "fetch", "svhn", "--size", 4).err
    assert "digits" in bench("data", "fetch", "digits", "--size", 8).err
    assert bench("data", "fetch", "digits", "--size", 8).code == 2


def test_damaged_files_in_the_way_are_named(bench, tmp_path):
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, images in (("train", 10), ("t10k", 9)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(bytes(4))
        labels = bytes([0, 0, 8, 1]) + struct.pack(">I", images) + bytes(images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(gzip.compress(labels))
    outcome = bench("data", "fetch", "mnist", "--root", tmp_path / "data")
    assert outcome.code == 2
    assert f"{raw}/" in outcome.err
