"""A privacy benchmark must not be the leak: where private images and pictures of them are, and are not."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import fl.data
from fl.data.catalog import DigitsConfig
from fl.specs import Plugin
from harness.config.matrix import load_matrix
from harness.execute.session import RunRequest, inline, run_matrix
from harness.results import load as load_results

PNG = b"\x89PNG"
MATRIX = """
name: %s
defaults:
  data: {name: %s, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 1, batch_size: 1}
  targets: 2
matrix:
  attack: [{name: inverting_gradients, iterations: 3}, mean_image]
"""


@pytest.fixture
def experiment_on(write_matrix, listener, tmp_path, plugin):
    """Run a small matrix on a data set, `ward` for private ones, and return the experiment's folder."""
    plugin("ward")

    def run(dataset, settings=""):
        matrix = load_matrix(write_matrix(settings + MATRIX % (dataset, dataset), dataset))
        result = run_matrix(RunRequest(matrix, tmp_path / "results", inline), listener)
        assert (result.complete, result.exit_code) == (2, 0)
        return tmp_path / "results" / dataset

    return run


def pictures(folder):
    """The PNG columns of an experiment's tables, joined."""
    tables = [pd.read_parquet(folder / name) for name in ("reconstructions", "traces")]
    assert all(len(table) for table in tables)
    return [picture for table in tables for picture in table["png"]]


def files_outside_private(folder):
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != "private"
    }


def test_pictures_of_private_images_are_private_files(experiment_on):
    folder = experiment_on("ward")
    for path, content in files_outside_private(folder).items():
        assert PNG not in content, path
    for picture in pictures(folder):
        assert picture["bytes"] is None
        assert picture["path"].startswith("private/")
        assert (folder / picture["path"]).read_bytes().startswith(PNG)
    assert (folder / "private").stat().st_mode & 0o777 == 0o700
    assert pd.read_parquet(folder / "reconstructions")["original"].isna().all()


def test_private_images_themselves_are_nowhere(experiment_on):
    folder = experiment_on("ward")
    digits = fl.data.DATASETS.implementation("ward")(DigitsConfig(size=8))
    images = digits.part("private").images()
    raw = [image.numpy().tobytes() for image in images]
    raw += [(image * 255).round().byte().numpy().tobytes() for image in images]
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(image in content for image in raw), path


def test_pictures_of_public_images_are_in_the_tables(experiment_on):
    folder = experiment_on("digits")

    assert any(PNG in content for content in files_outside_private(folder).values())
    for picture in pictures(folder):
        assert picture["bytes"].startswith(PNG)
        assert picture["path"] is None
    assert not (folder / "private" / "images").exists()


def test_public_originals_stand_beside_their_reconstructions(experiment_on):
    folder = experiment_on("digits")
    private = fl.data.load(Plugin("digits", 1, DigitsConfig(size=8))).part("private")
    results = load_results(folder, images=True)
    rows = results.reconstructions
    assert len(rows) == 4
    for image_id, picture in zip(rows["image_id"], rows["original"], strict=True):
        (image,) = private.images(private.positions([image_id]))
        assert results.picture(picture).tolist() == (image[0] * 255).round().tolist()


def test_the_manifest_names_no_private_place_or_image(experiment_on):
    folder = experiment_on("ward")
    manifest = (folder / "manifest.json").read_text()

    assert json.loads(manifest)["name"] == "ward"
    assert "patient-" not in manifest
    assert str(folder / "private") not in manifest


def test_private_pictures_in_a_store_of_their_own_are_found_again(experiment_on, tmp_path):
    vault = tmp_path / "vault"
    folder = experiment_on("ward", f"store: {{private_uri: {vault}}}")
    results = load_results(folder)

    assert not (folder / "private").exists()
    assert vault.stat().st_mode & 0o777 == 0o700
    for picture in results.reconstructions["png"]:
        assert results.picture(picture).shape == (8, 8)
