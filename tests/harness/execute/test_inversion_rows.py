"""Model inversion, from a matrix to rows: an evaluator per data set, made once, judges what was made."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import fl.data
from fl.data.catalog import DigitsConfig
from fl.specs import Plugin
from harness.execute.rescore import rescore
from harness.metrics import METRICS
from harness.results import load
from harness.store.artifacts import ArtifactStore

MATRIX = """
seeds: [0, 1]
defaults:
  data: {name: %s, size: 8}
  model: {name: lenet, convs: 2, init: default}
  federation: {clients: 4, rounds: 2, batch_size: 16, algorithm: fedavg, lr: 0.1}
  observe: {kind: global_model, rounds: [0, 1, 2]}
  threat_model: {position: participant}
  targets: 3
matrix:
  attack: [participant, random_guess]
"""
MEASURES = [card.column for card in METRICS if card.evaluated]


def evaluators(folder):
    """Keys of the evaluators in an experiment's private store, and of anything like it in the open one."""
    found = {}
    for name in ("private", "artifacts"):
        store = ArtifactStore(folder / name)
        keys = [path.stem for path in (folder / name).rglob("*.safetensors")]
        found[name] = [key for key in keys if "accuracy" in store.read_json(key)]
    return found


def test_trials_of_all_attacks_and_seeds_share_an_evaluator(plugin, rows_of, folder):
    plugin("fake_model_inversion")
    rows = rows_of(MATRIX % "digits")
    assert len(rows) == 4
    assert rows["evaluator_accuracy"].nunique() == 1
    assert rows["evaluator_accuracy"].iloc[0] > 0.95
    kept = evaluators(folder)
    assert len(kept["private"]) == 1
    assert kept["artifacts"] == []
    manifest = json.loads((folder / "manifest.json").read_text())
    stages = {stage["kind"]: (stage["distinct"], stage["trials"]) for stage in manifest["stages"]}
    assert stages["evaluator"] == (1, 4)

    real, noise = (rows[rows["attack"] == name] for name in ("participant", "random_guess"))
    assert set(real["n_reconstructions"]) == {6}
    assert real[MEASURES].notna().all().all()
    assert (real["attack_top1"] > 0.8).all()  # real public images of the class
    assert (noise["attack_top1"] < 0.7).all()
    assert (noise["knn_distance"].to_numpy() > 3 * real["knn_distance"].to_numpy()).all()
    assert (noise["evaluator_fid"].to_numpy() > real["evaluator_fid"].to_numpy()).all()
    assert noise["pairwise_distance"].isna().all()  # one image of each class
    assert rows["psnr_db"].isna().all()
    assert rows["floor_psnr_db"].isna().all()

    images = load(folder, images=True)
    private = fl.data.load(Plugin("digits", 1, DigitsConfig(size=8))).part("private")
    for row in images.reconstructions.itertuples():
        (position,) = private.positions([row.image_id])
        assert json.loads(row.true_label) == int(private.labels[position])
        original = images.picture(row.original).tolist()
        assert original == (private.images([position])[0, 0] * 255).round().tolist()
        assert row.hit == (row.evaluator_label == json.loads(row.true_label))

    before = {path.name: path.read_bytes() for path in (folder / "trials").iterdir()}
    ArtifactStore(folder / "private").discard(kept["private"][0])  # it is made again, the same
    again = rescore(folder, every=True)
    assert (again.complete, again.changed, again.failed) == (4, 0, {})
    assert {path.name: path.read_bytes() for path in (folder / "trials").iterdir()} == before
    assert rescore(folder).lacking == 0


def test_private_images_are_compared_with_and_never_shown(plugin, rows_of, folder):
    plugin("ward")
    rows = rows_of((MATRIX % "ward").replace("[participant, random_guess]", "[random_guess]"))
    assert rows["knn_distance"].notna().all()
    images = pd.read_parquet(folder / "reconstructions")
    assert images["original"].isna().all()
    assert images["image_id"].str.startswith("patient-").all()
    assert all(picture["bytes"] is None for picture in images["png"])
    assert len(evaluators(folder)["private"]) == 1


@pytest.fixture
def binary(plugin):
    plugin("fake_binary_digits")


def test_binary_tasks_are_not_judged(binary, rows_of, folder):
    text = (MATRIX % "odd_digits").replace("[participant, random_guess]", "[random_guess]")
    rows = rows_of(text.replace("targets: 3", "targets: 2"))
    assert rows[MEASURES].isna().all().all()
    assert all("binary task" in json.loads(reasons)["*"] for reasons in rows["null_reasons"])
    assert (rows["n_reconstructions"] == 2).all()
    assert evaluators(folder) == {"private": [], "artifacts": []}


def test_a_class_that_the_evaluator_never_saw_is_not_judged(rows_of, trials_of):
    text = (MATRIX % "digits").replace("size: 8", "size: 8, evaluation_labels: [0, 1, 2, 3, 4, 5, 6]")
    rows = rows_of(text.replace("[participant, random_guess]", "[random_guess]").replace("3\n", "10\n"))
    assert rows[MEASURES].isna().all().all()
    assert all("no image of class 7" in json.loads(reasons)["*"] for reasons in rows["null_reasons"])
