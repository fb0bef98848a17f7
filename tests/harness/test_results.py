from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fl.errors import StoreError, UsageError
from harness.results import load
from harness.store.experiment import Experiment, TrialRows

PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def trial(trial_id, *, defense="none", seed=1, federation="f", picture=None, **columns):
    at = {"trial_id": trial_id, "target_id": "t0"}
    return TrialRows(
        {
            "trial_id": trial_id,
            "status": "complete",
            "dataset": "digits",
            "model": "lenet",
            "defense": defense,
            "noise_budget": 0.0,
            "attack": "dlg",
            "attacker": "static",
            "round": 0,
            "seed": seed,
            "federation_key": federation,
            "spec": "{}",
            **columns,
        },
        [{**at, "reconstruction_index": 0, "ssim": 0.5, "finite": True, "png": picture}],
        [{**at, "iteration": 3, "best": 0.1}],
        [{"federation_key": federation, "round": n, "seed": seed, "accuracy": n / 4} for n in (0, 1)],
    )


@pytest.fixture
def folder(tmp_path):
    experiment = Experiment.open(tmp_path / "x", columns={"attack_lr": "float", "attack_boxed": "bool"})
    public = {"bytes": png(PIXELS), "path": None}
    private = {"bytes": None, "path": "private/images/b.png"}
    with experiment.lock():
        experiment.begin({"matrix": "m.yaml", "store": {}})
        experiment.commit([trial("a", picture=public, attack_lr=0.5, attack_boxed=True)])
        experiment.commit([trial("b", picture=private, defense="gaussian", federation="g", seed=2)])
        experiment.commit([trial("c", defense="pruning", federation="g", seed=2)])
    (tmp_path / "x" / "private" / "images").mkdir(parents=True)
    (tmp_path / "x" / "private" / "images" / "b.png").write_bytes(png(PIXELS[..., 0]))
    return tmp_path / "x"


def test_frames_have_the_documented_types(folder):
    results = load(folder)
    types = results.trials.dtypes.astype(str)
    assert types["trial_id"] == types["error"] == "str"
    assert types["seed"] == types["gradient_evaluations"] == "Int64"
    assert types["lpips"] == types["attack_lr"] == "float64"
    assert types["attack_boxed"] == "boolean"
    assert types["finished"] == "datetime64[us, UTC]"
    assert results.manifest["matrix"] == "m.yaml"
    assert results.path == str(folder)


def test_other_tables_carry_their_trials_axes(folder):
    results = load(folder)
    reconstructions = results.reconstructions.set_index("trial_id")
    assert dict(reconstructions.defense) == {"a": "none", "b": "gaussian", "c": "pruning"}
    assert dict(reconstructions.seed) == {"a": 1, "b": 2, "c": 2}
    assert dict(results.traces.set_index("trial_id").attack) == dict.fromkeys("abc", "dlg")
    assert results.reconstructions.groupby("defense").ssim.mean().to_dict() == dict.fromkeys(
        ("none", "gaussian", "pruning"), 0.5
    )
    assert list(results.reconstructions.columns[:3]) == ["trial_id", "dataset", "model"]


def test_rounds_carry_what_their_trials_agree_on(folder):
    rounds = load(folder).rounds
    assert len(rounds) == 4
    first = rounds.groupby("federation_key").first()
    assert first.defense["f"] == "none"
    assert pd.isna(first.defense["g"])
    assert first.model["g"] == "lenet"
    assert list(first.seed) == [1, 2]


def test_rows_whose_trial_is_not_stored_yet_are_left_out(folder):
    for path in (folder / "trials").iterdir():
        if pd.read_parquet(path).trial_id[0] == "b":
            path.unlink()
    results = load(folder)
    assert sorted(results.reconstructions.trial_id) == ["a", "c"]
    assert sorted(results.traces.trial_id) == ["a", "c"]


def test_pictures(folder):
    results = load(folder, images=True)
    cells = results.reconstructions.set_index("trial_id").png
    assert np.array_equal(results.picture(cells["a"]), PIXELS)
    assert np.array_equal(results.picture(cells["b"]), PIXELS[..., 0])
    assert pd.isna(cells["c"])
    (folder / "private" / "images" / "b.png").unlink()
    with pytest.raises(StoreError, match=r"images/b\.png"):
        results.picture(cells["b"])


def test_pictures_are_left_out_by_default(folder):
    results = load(folder)
    cells = results.reconstructions.set_index("trial_id").png
    assert cells["a"] == {"bytes": None, "path": None}
    assert cells["b"] == {"bytes": None, "path": "private/images/b.png"}
    assert pd.isna(cells["c"])
    assert results.picture(cells["b"]).shape == (2, 2)
    with pytest.raises(UsageError, match="images=True"):
        results.picture(cells["a"])


def test_a_private_folder_elsewhere(folder, tmp_path):
    (folder / "private").rename(tmp_path / "vault")
    experiment = Experiment.open(folder)
    with experiment.lock():
        experiment.begin({"store": {"private": str(tmp_path / "vault")}})
    results = load(folder)
    assert results.picture(results.reconstructions.set_index("trial_id").png["b"]).shape == (2, 2)


def test_only_the_tables_asked_for(folder):
    results = load(folder, tables=["rounds"])
    assert len(results.trials) == 3
    assert len(results.rounds) == 4
    assert len(results.reconstructions) == len(results.traces) == 0
    assert {"trial_id", "ssim", "defense", "png"} <= set(results.reconstructions.columns)


def test_files_from_before_a_column_was_added(folder):
    """As between a crash and the next run: one file is older than the others."""
    elsewhere = Experiment.open(folder.parent / "y", columns={"attack_lr": "str", "attack_new": "int"})
    with elsewhere.lock():
        elsewhere.commit([trial("z", attack_lr="auto", attack_new=3)])
    for path in (folder.parent / "y" / "trials").iterdir():
        path.rename(folder / "trials" / path.name)
    trials = load(folder).trials.set_index("trial_id")
    assert trials.attack_lr["a"] == "0.5"
    assert trials.attack_lr["z"] == "auto"
    assert trials.attack_new["z"] == 3
    assert pd.isna(trials.attack_new["a"])


def test_no_results(tmp_path):
    with pytest.raises(StoreError, match=r"expected an experiment's results in .*nowhere"):
        load(tmp_path / "nowhere")


def test_damaged_results(folder):
    path = next((folder / "rounds").iterdir())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=path.name):
        load(folder)


def test_loading_imports_no_torch(folder):
    script = f"""
import sys
from harness.results import load
assert len(load({str(folder)!r}).trials) == 3
assert not {{"torch", "ray", "PIL"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
