"""Small fakes of defenses still to come, and of a malicious server, run through `bench run` to a row."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
import torch

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


def test_a_malicious_server_and_clients_that_refuse(plugin, rows_of, folder):
    plugin("fake_malicious_server")
    rows = rows_of(MALICIOUS)
    rows["who"] = rows["defense"] + rows["defense_every"].astype("Int64").astype("string").fillna("")
    rows.loc[rows["defense_bound"] == 100, "who"] = "trusting"
    refused = rows.set_index("who")["refused_targets"]
    rounds = pd.read_parquet(folder / "rounds").merge(
        rows[["federation_key", "who"]].drop_duplicates(), on="federation_key"
    )

    assert refused[["none", "trusting", "wary1"]].tolist() == [0, 0, 5]
    assert 1 <= refused["wary2"] <= 4  # half of the eight clients look at the model, and five are attacked
    nobody = rows[rows["who"] == "wary1"]
    assert nobody["psnr_db"].isna().all()
    for reasons in nobody["null_reasons"]:
        assert "refused" in json.loads(reasons)["*"]
    assert rows[rows["who"] != "wary1"]["psnr_db"].notna().all()
    after = rounds[rounds["round"] == 1].set_index("who")["refused"]
    assert after.to_dict() == {"none": 0, "trusting": 0, "wary1": 8, "wary2": 4}


def test_the_manipulated_model_is_what_the_adversary_sees(plugin, workshop, trials_of):
    plugin("fake_malicious_server")
    (trial, *_), shop = trials_of(MALICIOUS.replace("round: [1]", "round: [0]")), workshop()
    clean = shop.materials.checkpoint(trial.spec, 0).model.tensors
    seen = shop.materials.seen(trial.spec)[0].observation.sent.tensors

    assert torch.equal(seen["head.weight"], 4 * clean["head.weight"])
    assert torch.equal(seen["head.bias"], clean["head.bias"])


def test_a_defense_like_dp_sgd(plugin, rows_of, workshop, trials_of, folder):
    module = plugin("fake_dp_sgd")
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
    rows = rows_of(text)
    trials, shop = trials_of(text), workshop()
    federation = shop.materials.federation(trials[0].spec)
    observed = {client for t in shop.materials.seen(trials[0].spec) for client in t.observation.clients}
    batches = {client: federation.batch_sizes(0, client) for client in range(8)}
    rounds = pd.read_parquet(folder / "rounds").set_index("round")

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
