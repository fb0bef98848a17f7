"""`bench data` and `bench plan` about data sets whose files users get for themselves."""

from __future__ import annotations

import pytest
from PIL import Image

MATRIX = """
version: 1
name: chests
defaults:
  data: {name: chestxray, size: 16}
  model: {name: lenet, convs: 2}
matrix:
  attack: [random_guess]
"""


@pytest.fixture(autouse=True)
def _own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LEAKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "400")


@pytest.fixture
def chests(tmp_path):
    """Eight images of each finding where `LEAKBENCH_DATA` says."""
    for label, finding in enumerate(("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")):
        folder = tmp_path / "data" / "chestxray" / finding / "images"
        folder.mkdir(parents=True)
        for number in range(8):
            Image.new("L", (16, 16), 10 * label + number).save(folder / f"{number}.png")


def availability(bench, name):
    lines = bench("data", "list").out.splitlines()
    return next(line for line in lines if line.startswith(f"{name} ")).rstrip().split("  ")[-1].strip()


def test_absent_files_are_not_fetched_but_explained(bench, tmp_path):
    assert availability(bench, "chestxray").startswith("bench data show")
    found = bench("data", "fetch", "chestxray")
    assert found.code == 2
    assert f"expected its folder at {tmp_path / 'data' / 'chestxray'}" in found.err
    assert "get the COVID-19 Radiography Database" in found.err
    shown = bench("data", "show", "chestxray", "--json").json
    assert "get the COVID-19 Radiography Database" in shown["problem"]


@pytest.mark.usefixtures("chests")
def test_files_in_their_place_are_told(bench):
    assert availability(bench, "chestxray") == "yes"
    found = bench("data", "fetch", "chestxray")
    assert (found.code, "nothing to fetch" in found.out) == (0, True)
    shown = bench("data", "show", "chestxray", "--json").json
    assert shown["images_by_part"] == {"private": 16, "public": 8, "evaluation": 4, "test": 4}


def test_one_damaged_set_does_not_hide_the_list(bench, tmp_path):
    for table in ("train.csv", "valid.csv"):
        (tmp_path / "data" / "chexpert").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "chexpert" / table).write_text("Path,No Finding\n")
    assert availability(bench, "chexpert") == "bench data show chexpert"
    assert availability(bench, "digits") == "yes"
    assert "train.csv:1: expected a column" in bench("data", "show", "chexpert", "--json").json["problem"]


def test_your_own_images_are_nowhere_until_you_say_where(bench):
    assert availability(bench, "folder") == "bench data show folder"


def test_a_plan_without_the_files_ends_with_2_and_the_place(bench, tmp_path):
    path = tmp_path / "chests.yaml"
    path.write_text(MATRIX)
    found = bench("plan", path)
    assert found.code == 2
    assert f"{path}:5: " in found.err
    assert "get the COVID-19 Radiography Database" in found.err


@pytest.mark.usefixtures("chests")
def test_a_plan_with_the_files(bench, tmp_path):
    path = tmp_path / "chests.yaml"
    path.write_text(MATRIX)
    assert bench("plan", path, "--results", tmp_path).code == 0
