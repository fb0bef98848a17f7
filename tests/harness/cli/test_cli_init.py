"""`bench init` writes matrices that validate, plan and run."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from harness.cli.init import TEMPLATES
from harness.config.matrix import load_matrix
from harness.plan.planner import make_plan


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes, 40 images of 20x24 pixels."""
    stream = np.random.default_rng(0)
    for label in ("healthy", "ill"):
        folder = tmp_path / "my pictures" / label
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = stream.integers(0, 256, (24, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "my pictures"


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_is_a_matrix_all_of_whose_trials_apply(bench, tmp_path, pictures, template):
    images = ("--images", pictures) if template == "images" else ()
    done = bench("init", tmp_path / "new" / "study.yaml", "--template", template, *images)
    assert done.code == 0
    assert "bench plan" in done.out
    matrix = load_matrix(tmp_path / "new" / "study.yaml")
    assert matrix.name == "study"
    plan = make_plan(matrix, {})
    assert plan.reasons() == {}
    assert len(plan.todo) > 3


def test_the_folder_is_looked_at(bench, tmp_path, pictures):
    done = bench("init", tmp_path / "study.yaml", "--images", pictures)
    assert "2 classes; 22 private" in done.out
    (spec, *_) = load_matrix(tmp_path / "study.yaml").expand()
    assert spec.data.config.size == 16  # the largest of 64, 32 and 16 that 20 pixels allow
    assert spec.federation.clients == 10


@pytest.mark.parametrize("name", ["{size} of {name}", "Röntgen 🩻", 'a "b" # c: d'])
def test_any_name_of_a_folder(bench, tmp_path, pictures, name):
    pictures.rename(tmp_path / name)
    assert bench("init", tmp_path / "study.yaml", "--images", tmp_path / name).code == 0
    (spec, *_) = load_matrix(tmp_path / "study.yaml").expand()
    assert spec.data.config.root == str(tmp_path / name)


def test_too_few_images_for_the_targets_are_refused(bench, tmp_path, pictures):
    for label, kept in (("healthy", 2), ("ill", 4)):
        for path in sorted((pictures / label).iterdir())[kept:]:
            path.unlink()
    done = bench("init", tmp_path / "study.yaml", "--images", pictures)
    assert done.code == 2
    assert "expected at least 4 images in the private part, got 3 of 6 images" in done.err


def test_a_place_that_cannot_be_written_is_told(bench, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for arguments in ((tmp_path / "file" / "study.yaml",), (tmp_path / "folder", "--force")):
        done = bench("init", *arguments)
        assert done.code == 2
        assert "cannot be written" in done.err


def test_what_it_wrote_runs(bench, tmp_path):
    bench("init", tmp_path / "study.yaml")
    done = bench(
        "run", tmp_path / "study.yaml", "--results", tmp_path / "results", "--executor", "inline", "--smoke",
        "--only", "attack=random_guess", "--json",
    )  # fmt: skip
    assert done.code == 0
    assert done.json["complete"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("old.yaml",), "--force"),
        (("new.yaml", "--template", "images"), "--images DIR"),
        (("new.yaml", "--template", "first", "--images", "."), "--images DIR"),
        (("new.yaml", "--images", "nowhere"), "nowhere: expected a folder"),
        (("bad name.yaml",), "letters, digits"),
    ],
)
def test_mistakes_are_refused_and_nothing_is_written(bench, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.yaml").write_text("mine")
    done = bench("init", *arguments)
    assert done.code == 2
    assert message in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["old.yaml"]
    assert (tmp_path / "old.yaml").read_text() == "mine"


def test_force_replaces(bench, tmp_path):
    target = tmp_path / "old.yaml"
    target.write_text("mine")
    assert bench("init", target, "--force").code == 0
    assert "version: 1" in target.read_text()
