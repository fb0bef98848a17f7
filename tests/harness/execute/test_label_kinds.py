"""Binary and multilabel tables of the user's own go through `bench run` to complete rows."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import metrics as reference

from fl.errors import ConfigError
from harness.config.matrix import load_matrix
from harness.plan.planner import make_plan

OUTPUTS = ("bright", "left", "striped")
MATRIX = """
defaults:
  data:
    name: folder
    root: {root}
    csv: t.csv
    size: 16
    channels: gray
    task: {task}
    label_columns: [{columns}]
    patient_column: patient
    public: true
  model: {{name: lenet, convs: 2}}
  federation: {{clients: 4, rounds: 1, batch_size: 1, lr: 0.1}}
  targets: 2
matrix:
  threat_model.knowledge.labels: [known, unknown]
  attack:
    - {{name: inverting_gradients, iterations: 80, total_variation: 0}}
    - random_guess
"""


def draw(rng, bright, left, striped):
    """A 16x16 image in which three things can be seen or not."""
    pixels = rng.integers(0, 60, (16, 16)) + 120 * bright
    pixels[:, :8] += 60 * left
    pixels[::4] = np.where(striped, 0, pixels[::4])
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def table(tmp_path, monkeypatch):
    """96 images of 48 patients; the table has a column of 0 and 1 for each thing."""
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    root.mkdir()
    with (root / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "patient", *OUTPUTS])
        for number in range(96):
            labels = rng.integers(0, 2, 3)
            draw(rng, *labels).save(root / f"{number}.png")
            writer.writerow([f"{number}.png", number // 2, *labels])
    return root


@pytest.fixture(params=[("binary", OUTPUTS[:1]), ("multilabel", OUTPUTS)], ids=lambda kind: kind[0])
def finished(request, table, rows_of):
    """Task, columns of the labels, matrix and rows."""
    task, columns = request.param
    text = MATRIX.format(root=table, task=task, columns=", ".join(columns))
    return task, columns, text, rows_of(text)


def test_rows_are_complete(finished, folder, trials_of, workshop):
    task, columns, text, rows = finished

    assert len(rows) == 4
    for column in ("ssim", "identification_top1", "shuffled_psnr_db"):
        assert rows[column].notna().all(), column
    inverted = rows[rows["attack"] == "inverting_gradients"].set_index("threat_model_knowledge_labels")
    assert (inverted["psnr_db"] > inverted["floor_psnr_db"] + 3).all()
    assert inverted.loc["unknown", "label_accuracy"] == 1  # batches of one image
    images = pd.read_parquet(folder / "reconstructions")
    labels = [json.loads(label) for label in images["true_label"].dropna()]
    assert len(labels) == rows["n_images"].sum()
    assert all(label in (0, 1) if task == "binary" else len(label) == 3 for label in labels)

    # the same model, judged by scikit-learn
    spec = trials_of(text)[0].spec
    materials = workshop("results/small").materials
    logits, wanted = materials.federation(spec).predict(materials.checkpoint(spec, 1))
    assert logits.shape == wanted.shape == (14, len(columns))
    truth, found = wanted.numpy().astype(int), (logits > 0).numpy().astype(int)
    sides = list(zip(truth.T, found.T, strict=True))
    many = "macro" if task == "binary" else "binary"  # binary: both classes; multilabel: the positive one
    expected = {
        "accuracy": (truth == found).mean(),
        "balanced_accuracy": np.mean([reference.balanced_accuracy_score(t, f) for t, f in sides]),
        "macro_f1": np.mean([reference.f1_score(t, f, average=many, zero_division=0) for t, f in sides]),
        "auroc": reference.roc_auc_score(truth, logits.numpy()),
    }
    for column, value in expected.items():
        assert rows[column].tolist() == pytest.approx([value] * 4), column


@pytest.mark.parametrize(
    "partition", ["dirichlet", "shards", "{name: sizes, sizes: [4, 4, 4, 4], balanced: true}"]
)
def test_images_of_several_labels_are_not_dealt_out_by_class(table, write_matrix, partition):
    text = MATRIX.format(root=table, task="multilabel", columns=", ".join(OUTPUTS))
    text = text.replace("clients: 4,", f"clients: 4, partition: {partition},")
    with pytest.raises(ConfigError, match=r":\d+: .*one class per image .*partition: iid"):
        make_plan(load_matrix(write_matrix(text)), {})
