"""A small fake of every kind of attack and defense still to come runs through `bench run` to a row.

The fakes lie in `later_kinds/`, each in fewer than 60 lines against the public types alone.
"""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

import fl.data
from attacks import ATTACKS
from defenses import DEFENSES
from fl import recorded
from fl.cards import AttackCard, DataCard, DefenseCard, ManipulationCard
from fl.manipulations import MANIPULATIONS
from harness.cli.main import run as bench

FAKES = Path(__file__).parent / "later_kinds"
REGISTRIES = {
    DataCard: fl.data.DATASETS,
    AttackCard: ATTACKS,
    DefenseCard: DEFENSES,
    ManipulationCard: MANIPULATIONS,
}


@pytest.fixture
def fake(register, monkeypatch):
    """Import a fake and register its cards."""
    monkeypatch.syspath_prepend(FAKES)

    def add(name):
        module = importlib.import_module(name)
        for card in (getattr(module, which, None) for which in ("CARD", "MANIPULATION")):
            if card is not None:
                register(REGISTRIES[type(card)], card)
        return module

    return add


@pytest.fixture
def rows_of(write_matrix, tmp_path):
    """Run a matrix with `bench run` and return its rows in `trials/`, and the experiment's folder."""

    def run(text, exit_code=0):
        path, results = write_matrix(text), tmp_path / "results"
        options = ["--results", str(results), "--executor", "inline", "--progress", "none"]
        assert bench(["run", str(path), *options]) == exit_code
        folder = results / "small"
        return pd.read_parquet(folder / "trials"), folder

    return run


def complete(rows):
    return rows["status"].tolist() == ["complete"] * len(rows)


@pytest.mark.parametrize("path", sorted(FAKES.glob("*.py")), ids=lambda path: path.stem)
def test_a_fake_is_short(path):
    assert len(path.read_text().splitlines()) < 60


def test_parameter_difference_with_frozen_layers_and_bce(fake, rows_of, workshop, trials_of):
    fake("fake_binary_digits")
    fake("fake_parameter_difference")
    text = """
    defaults:
      data: {name: odd_digits, size: 8, private_labels: [0, 1, 2]}
      model: {name: lenet, convs: 2, init: default}
      federation:
        {algorithm: fedavg, clients: 50, participation: 0.1, rounds: 1, batch_size: 2, lr: 0.1, chunk: 8}
      threat_model: {knowledge: {labels: known}}
      targets: 2
    matrix:
      federation.freeze: [all_but_last, middle]
      observe.round: [0, 1]
      attack: [parameter_difference]
    """
    rows, _ = rows_of(text)

    assert complete(rows)
    assert len(rows) == 4
    assert rows["psnr_db"].notna().all()
    assert set(rows["update_domain"]) == {"delta"}
    assert set(rows["gradient_evaluations"]) == {40}
    assert rows["auroc"].notna().all()  # one sigmoid output
    shop = workshop()
    for trial in trials_of(text):
        spec = trial.spec
        if spec.observe.round == 0:
            observed = shop.materials.seen(spec)[0].observation
            trained = set(observed.update.tensors)
            head, body = {"head.weight", "head.bias"}, set(observed.sent.tensors)
            assert observed.task.loss == "binary_cross_entropy"
            assert observed.sent.tensors["head.weight"].shape[0] == 1
            if spec.federation.freeze == "all_but_last":
                assert trained == head
            else:
                assert head < trained < body
            floats = sum(observed.sent.tensors[name].numel() for name in trained)
            row = rows[rows["federation_freeze"] == spec.federation.freeze].iloc[0]
            assert row["bytes_up"] == 4 * floats * spec.federation.participants


def test_an_attack_with_a_prior(fake, rows_of):
    module = fake("fake_prior")
    rows, folder = rows_of(
        """
        seeds: [0, 1]
        defaults:
          data: {name: digits, size: 8}
          model: {name: lenet, convs: 2}
          federation: {clients: 4, rounds: 0, batch_size: 1}
          threat_model: {knowledge: {labels: known}}
          targets: 3
        matrix:
          attack: [{name: prior_attack, components: 8}, {name: prior_attack, components: 16}]
          defense: [none, gaussian]
          noise_budget: {gaussian: [1e-4]}
        """
    )

    assert complete(rows)
    assert len(rows) == 8
    assert (rows["psnr_db"] > rows["floor_psnr_db"]).all()
    manifest = json.loads((folder / "manifest.json").read_text())
    stages = {stage["kind"]: (stage["distinct"], stage["trials"]) for stage in manifest["stages"]}
    assert stages["prior"] == (2, 8)
    assert module.CARD.name in set(rows["attack"])


def test_an_attack_that_trains_on_simulated_clients(fake, rows_of):
    fake("fake_learned_inverter")
    rows, _ = rows_of(
        """
        defaults:
          data: {name: digits, size: 8}
          model: {name: lenet, convs: 2}
          federation: {clients: 4, rounds: 1, batch_size: 1}
          targets: 4
        matrix:
          attack: [learned_inverter]
          attacker: [static, adaptive]
          defense: [none, clipping]
          noise_budget: {clipping: [0.1]}
        exclude:
          - {defense: none, attacker: adaptive}
        """
    )
    psnr = rows.set_index(["defense", "attacker"])["psnr_db"]

    assert complete(rows)
    assert set(rows["gradient_evaluations"]) == {4 * 64}
    assert psnr["none", "static"] > rows["floor_psnr_db"].iloc[0]
    assert psnr["clipping", "adaptive"] > psnr["clipping", "static"]


def test_a_sum_over_five_clients(fake, rows_of):
    fake("fake_sum")
    rows, folder = rows_of(
        """
        defaults:
          data: {name: digits, size: 8}
          model: {name: lenet, convs: 2}
          federation: {clients: 16, rounds: 1, batch_size: 1}
          observe: {kind: aggregate, clients: 5}
          targets: 3
        matrix:
          attack: [sum_attack, random_guess]
        """
    )
    images = pd.read_parquet(folder / "reconstructions")

    assert complete(rows)
    assert set(rows["n_images"]) == {15}
    assert set(rows["n_targets"]) == {3}
    own = rows.set_index("attack").loc["sum_attack"]
    assert own["label_accuracy"] > 0.3
    assert own["psnr_db"] > rows.set_index("attack").loc["random_guess", "psnr_db"]
    assert images[images["trial_id"] == own["trial_id"]]["target_id"].nunique() == 3


def test_a_participant_that_saw_three_rounds(fake, rows_of):
    fake("fake_model_inversion")
    rows, folder = rows_of(
        """
        defaults:
          data: {name: digits, size: 8}
          model: {name: lenet, convs: 2, init: default}
          federation: {clients: 4, rounds: 2, batch_size: 16, algorithm: fedavg, lr: 0.1}
          observe: {kind: global_model, rounds: [0, 1, 2]}
          threat_model: {position: participant}
          targets: 3
        matrix:
          attack: [participant, random_guess]
        """
    )
    row = rows.set_index("attack").loc["participant"]
    images = pd.read_parquet(folder / "reconstructions")

    assert complete(rows)
    assert row["n_targets"] == 3
    assert math.isnan(row["psnr_db"])
    assert "evaluator" in json.loads(row["null_reasons"])["*"]
    assert row["accuracy"] > 0
    assert len(images[images["trial_id"] == row["trial_id"]]) == 6
    assert row["update_domain"] is None or pd.isna(row["update_domain"])


MALICIOUS = """
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 8, rounds: 1, batch_size: 1}
  threat_model: {behaviour: malicious, manipulation: {name: enlarge, factor: 4}}
  targets: 5
matrix:
  attack: [{name: inverting_gradients, iterations: 2}]
  observe.round: [1]
  defense: [none, {name: wary}, {name: wary, every: 2}, {name: wary, bound: 100}]
"""


def test_a_malicious_server_and_clients_that_refuse(fake, rows_of):
    fake("fake_malicious_server")
    rows, folder = rows_of(MALICIOUS)
    rows["who"] = rows["defense"] + rows["defense_every"].astype("Int64").astype("string").fillna("")
    rows.loc[rows["defense_bound"] == 100, "who"] = "trusting"
    refused = rows.set_index("who")["refused_targets"]
    rounds = pd.read_parquet(folder / "rounds").merge(
        rows[["federation_key", "who"]].drop_duplicates(), on="federation_key"
    )

    assert complete(rows)
    assert refused[["none", "trusting", "wary1"]].tolist() == [0, 0, 5]
    assert 1 <= refused["wary2"] <= 4  # half of the eight clients look at the model, and five are attacked
    nobody = rows[rows["who"] == "wary1"]
    assert nobody["psnr_db"].isna().all()
    for reasons in nobody["null_reasons"]:
        assert "refused" in json.loads(reasons)["*"]
    assert rows[rows["who"] != "wary1"]["psnr_db"].notna().all()
    after = rounds[rounds["round"] == 1].set_index("who")["refused"]
    assert after.to_dict() == {"none": 0, "trusting": 0, "wary1": 8, "wary2": 4}


def test_the_manipulated_model_is_what_the_adversary_sees(fake, workshop, trials_of):
    fake("fake_malicious_server")
    (trial, *_), shop = trials_of(MALICIOUS.replace("round: [1]", "round: [0]")), workshop()
    clean = shop.materials.checkpoint(trial.spec, 0).model.tensors
    seen = shop.materials.seen(trial.spec)[0].observation.sent.tensors

    assert torch.equal(seen["head.weight"], 4 * clean["head.weight"])
    assert torch.equal(seen["head.bias"], clean["head.bias"])


def test_a_defense_like_dp_sgd(fake, rows_of, workshop, trials_of):
    module = fake("fake_dp_sgd")
    text = """
    defaults:
      data: {name: digits, size: 8, private_labels: [0]}
      model: {name: lenet, convs: 2}
      federation: {algorithm: fedavg, clients: 8, rounds: 2, batch_size: 2, lr: 0.05, chunk: 4}
      targets: 3
    matrix:
      attack: [{name: inverting_gradients, iterations: 2}]
      observe.round: [0, 1]
      defense: [{name: fake_dp_sgd, sigma: 2}]
    """
    rows, folder = rows_of(text)
    trials, shop = trials_of(text), workshop()
    federation = shop.materials.federation(trials[0].spec)
    observed = {client for t in shop.materials.seen(trials[0].spec) for client in t.observation.clients}
    batches = {client: federation.batch_sizes(0, client) for client in range(8)}
    rounds = pd.read_parquet(folder / "rounds").set_index("round")

    assert complete(rows)
    assert any(0 in batches[client] for client in observed)  # an attacked client had an empty batch
    assert len({size for sizes in batches.values() for size in sizes}) > 2
    assert rows["psnr_db"].notna().all()
    steps = max(len(sizes) for sizes in batches.values())
    each = math.sqrt(2 * math.log(1.25 * 2 * steps / 1e-5)) / 2
    assert rows["epsilon"].tolist() == pytest.approx([2 * steps * each] * 2)
    assert set(rows["delta"]) == {module.DpSgdConfig().delta}
    assert set(rows["privacy_unit"]) == {"example"}
    assert pd.isna(rounds.loc[0, "epsilon"])
    assert 0 < rounds.loc[1, "epsilon"] < rounds.loc[2, "epsilon"]


@pytest.fixture
def recording(workshop, trials_of, tmp_path):
    """A recorded update of a client that nobody knows."""
    (trial,) = trials_of("matrix: {attack: [random_guess], targets: [1]}")
    (seen,) = workshop("elsewhere").materials.seen(trial.spec)
    path = tmp_path / "update.safetensors"
    recorded.write(path, seen.observation)
    return path


def test_a_recorded_observation_without_a_secret(recording, rows_of):
    rows, folder = rows_of(
        f"""
        defaults:
          observation: {{file: {recording}, public: {{name: digits, size: 8}}}}
        matrix:
          attack: [{{name: dlg, iterations: 2}}, mean_image, random_guess]
        """
    )
    reasons = [json.loads(reasons) for reasons in rows["null_reasons"]]
    images = pd.read_parquet(folder / "reconstructions")

    assert complete(rows)
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
    before, _ = rows_of(text % recording)
    moved = recording.rename(tmp_path / "moved.safetensors")
    after, _ = rows_of(text % moved)

    assert after["trial_id"].tolist() == before["trial_id"].tolist()
