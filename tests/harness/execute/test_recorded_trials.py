"""A recorded update of a client that nobody knows runs through `bench run` to a row."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from fl import recorded
from harness.config.matrix import load_matrix
from harness.plan.planner import make_plan


@pytest.fixture
def recording(workshop, trials_of, tmp_path):
    """A recorded update of a client that nobody knows."""
    (trial,) = trials_of("matrix: {attack: [random_guess], targets: [1]}")
    (seen,) = workshop("elsewhere").materials.seen(trial.spec)
    path = tmp_path / "update.safetensors"
    recorded.write(path, seen.observation)
    return path


def test_a_recorded_observation_without_a_secret(recording, rows_of, folder):
    rows = rows_of(
        f"""
        defaults:
          observation: {{file: {recording}, public: {{name: digits, size: 8}}}}
        matrix:
          attack: [{{name: dlg, iterations: 2}}, mean_image, random_guess]
        """
    )
    reasons = [json.loads(reasons) for reasons in rows["null_reasons"]]
    images = pd.read_parquet(folder / "reconstructions")

    assert len(rows) == 3
    for column in ("psnr_db", "ssim", "success_rate", "shuffled_psnr_db", "ceiling_ssim", "accuracy"):
        assert rows[column].isna().all(), column
    assert all("no secret" in reason["*"] for reason in reasons)
    assert rows["floor_psnr_db"].notna().all()
    assert rows["floor_ssim"].notna().all()
    assert rows["dataset"].isna().all()
    assert set(rows["public"]) == {"digits"}
    assert len(images) == 3
    assert all(picture["bytes"] is None for picture in images["png"])
    assert all((folder / picture["path"]).is_file() for picture in images["png"])


def test_a_recording_is_known_by_its_content(recording, rows_of, tmp_path):
    text = """
    defaults:
      observation: {file: %s, public: {name: digits, size: 8}}
    matrix: {attack: [random_guess]}
    """
    before = rows_of(text % recording)
    moved = recording.rename(tmp_path / "moved.safetensors")
    after = rows_of(text % moved)

    assert after["trial_id"].tolist() == before["trial_id"].tolist()


@pytest.mark.parametrize("attack", ["gmi", "kedmi", "plgmi", "vmi"])
def test_a_recorded_model_does_not_say_which_classes_to_recover(
    attack, workshop, trials_of, write_matrix, tmp_path
):
    text = "matrix: {attack: [random_guess], observe: [{kind: global_model}], targets: [1]}"
    (trial,) = trials_of(text)
    (seen,) = workshop().materials.seen(trial.spec)
    path = tmp_path / "model.safetensors"
    recorded.write(path, seen.observation)
    public = "public: {name: digits, size: 8}"
    text = (
        f"defaults: {{observation: {{file: {path}, {public}}}, targets: 1}}\nmatrix: {{attack: [{attack}]}}"
    )
    plan = make_plan(load_matrix(write_matrix(text)), {})

    (reason,) = plan.reasons()
    assert reason.startswith(f"attack {attack!r}: ")
    assert "which classes to recover" in reason
