"""A small fake of every kind of attack still to come runs through `bench run` to a row.

The fakes lie in `later_kinds/`, each in fewer than 60 lines against the public types alone.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

FAKES = sorted((Path(__file__).parent / "later_kinds").glob("*.py"))


@pytest.mark.parametrize("path", FAKES, ids=lambda path: path.stem)
def test_a_fake_is_short(path):
    assert len(path.read_text().splitlines()) < 60


def test_parameter_difference_with_frozen_layers_and_bce(plugin, rows_of, workshop, trials_of):
    plugin("fake_binary_digits")
    plugin("fake_parameter_difference")
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
    rows = rows_of(text)

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


def test_an_attack_with_a_prior(plugin, rows_of, folder):
    module = plugin("fake_prior")
    rows = rows_of(
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

    assert len(rows) == 8
    assert (rows["psnr_db"] > rows["floor_psnr_db"]).all()
    manifest = json.loads((folder / "manifest.json").read_text())
    stages = {stage["kind"]: (stage["distinct"], stage["trials"]) for stage in manifest["stages"]}
    assert stages["prior"] == (2, 8)
    assert module.CARD.name in set(rows["attack"])


def test_an_attack_that_trains_on_simulated_clients(plugin, rows_of):
    plugin("fake_learned_inverter")
    rows = rows_of(
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

    assert set(rows["gradient_evaluations"]) == {4 * 64}
    assert psnr["none", "static"] > rows["floor_psnr_db"].iloc[0]
    assert psnr["clipping", "adaptive"] > psnr["clipping", "static"]


def test_a_sum_over_five_clients(plugin, rows_of, folder):
    plugin("fake_sum")
    rows = rows_of(
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

    assert set(rows["n_images"]) == {15}
    assert set(rows["n_targets"]) == {3}
    own = rows.set_index("attack").loc["sum_attack"]
    assert own["label_accuracy"] > 0.3
    assert own["psnr_db"] > rows.set_index("attack").loc["random_guess", "psnr_db"]
    assert images[images["trial_id"] == own["trial_id"]]["target_id"].nunique() == 3


def test_a_participant_that_saw_three_rounds(plugin, rows_of, folder):
    plugin("fake_model_inversion")
    rows = rows_of(
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

    assert row["n_targets"] == 3
    assert math.isnan(row["psnr_db"])
    assert "no single true image" in json.loads(row["null_reasons"])["*"]
    assert row["attack_top1"] > 0.5  # real images of the classes
    assert row["accuracy"] > 0
    assert len(images[images["trial_id"] == row["trial_id"]]) == 6
    assert row["update_domain"] is None or pd.isna(row["update_domain"])
