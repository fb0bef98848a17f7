"""Partitions, sigmoid tasks and forms of observation, from a matrix to its rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import fl.data
from fl.cards import DataCard
from fl.data import Dataset
from fl.data.catalog import CARDS
from fl.specs import Task
from harness.execute.federate import run_federation
from harness.execute.work import FederationItem
from harness.plan.keys import federation_key

DIGITS = next(card for card in CARDS if card.name == "digits")
VOLUMES = 20


def changed(config, *, task, labels, groups):
    """Digits with other labels, and optionally `VOLUMES` sources of consecutive images."""
    digits = fl.data.load(fl.data.Plugin("digits", 1, config))
    parts = {}
    for name, part in digits.parts.items():
        names = tuple(f"{name}{i * VOLUMES // len(part)}" for i in range(len(part))) if groups else None
        parts[name] = replace(part, labels=labels(part.labels), groups=names)
    info = replace(digits.info, task=task, groups=VOLUMES if groups else None)
    return Dataset(info, parts)


def volumes(config):
    """Digits in sources."""
    return changed(config, task=Task("multiclass", 10), labels=lambda labels: labels, groups=True)


def large(config):
    """Whether a digit is above 4."""
    return changed(
        config, task=Task("binary", 2), labels=lambda x: (x > 4).float().unsqueeze(1), groups=False
    )


def facts(config):
    """Three facts about each digit, none excluding another."""
    return changed(
        config,
        task=Task("multilabel", 3),
        labels=lambda x: torch.stack([x > 4, x % 2 == 0, x % 3 == 0], dim=1).float(),
        groups=False,
    )


@pytest.fixture
def variants(register):
    """Register the data sets above."""
    for load in (volumes, large, facts):

        def describe(config, load=load):
            return load(config).info

        card: DataCard = replace(
            DIGITS, name=load.__name__, implementation=f"{__name__}:{load.__name__}", describe=describe
        )
        register(fl.data.DATASETS, card)


@pytest.mark.usefixtures("variants")
def test_patient_overlap_is_a_column(rows_of):
    rows = rows_of(
        """
        defaults:
          model: {name: lenet, convs: 2}
          federation: {clients: 5, rounds: 0, batch_size: 1}
          targets: 2
        matrix:
          data: [{name: volumes, size: 8}]
          attack: [random_guess]
          federation:
            - {partition: iid}
            - {partition: patient}
            - {partition: {name: patient, allow_overlap: true}, clients: 21}
            - {partition: {name: sizes, sizes: [3, 1, 1, 1, 1]}}
        include:
          - {data: {name: digits, size: 8}, attack: random_guess}
        """
    ).set_index(["dataset", "federation_clients", "federation_partition_name"])
    overlap = dict(rows["patient_overlap"].items())

    assert overlap["volumes", 5, "iid"] is True
    assert overlap["volumes", 5, "patient"] is False
    assert overlap["volumes", 21, "patient"] is True
    assert isinstance(overlap["volumes", 5, "sizes"], bool)
    assert overlap["digits", 5, "iid"] is None or pd.isna(overlap["digits", 5, "iid"])


@pytest.mark.usefixtures("variants")
def test_too_few_patients_are_a_mistake_before_anything_runs(run):
    with pytest.raises(fl.errors.UsageError, match=r"at least 21 patients for 21 clients, got 20"):
        run(
            """
            defaults: {model: {name: lenet, convs: 2}, federation: {clients: 21, partition: patient}}
            matrix: {data: [{name: volumes, size: 8}], attack: [random_guess]}
            """
        )


@pytest.mark.parametrize("data", ["large", "facts"])
@pytest.mark.parametrize("algorithm", ["fedsgd", "fedprox", "fedadam"])
@pytest.mark.usefixtures("variants")
def test_sigmoid_tasks_are_trained_and_tested_every_round(data, algorithm, workshop, trials_of):
    lr = 2.0 if algorithm == "fedsgd" else 0.3
    (trial,) = trials_of(
        f"""
        defaults:
          model: {{name: lenet, convs: 2}}
          federation: {{algorithm: {algorithm}, clients: 8, rounds: 6, batch_size: 16, lr: {lr}}}
          targets: 1
        matrix: {{data: [{{name: {data}, size: 8}}], attack: [random_guess]}}
        """
    )
    shop, item = workshop(), FederationItem(federation_key(trial.spec), trial.spec)
    run_federation(shop.materials, shop.store, item)
    history = shop.store.read_json(item.key)["rounds"]
    federation = shop.materials.federation(trial.spec)
    logits, labels = federation.predict(shop.materials.checkpoint(trial.spec, 6))
    areas = [roc_auc_score(labels[:, c], logits[:, c]) for c in range(labels.shape[1])]

    assert [row["round"] for row in history] == list(range(7))
    assert all(row[name] is not None for row in history for name in ("accuracy", "macro_f1", "auroc"))
    assert history[-1]["auroc"] == pytest.approx(np.mean(areas))
    assert history[-1]["accuracy"] == pytest.approx(((logits > 0) == (labels > 0.5)).double().mean().item())
    assert history[-1]["loss"] < history[0]["loss"]


@pytest.mark.usefixtures("variants")
def test_a_parameter_difference_is_attacked_like_a_gradient(rows_of):
    rows = rows_of(
        """
        defaults:
          model: {name: lenet, convs: 2}
          data: {name: large, size: 8}
          federation:
            {algorithm: fedavg, clients: 248, participation: 0.02, rounds: 1, batch_size: 4, lr: 0.01}
          threat_model: {knowledge: {labels: known}}
          targets: 2
        matrix:
          observe: [{}, {form: parameter_difference}, {form: parameter_difference, round: 1}]
          attack: [{name: inverting_gradients, iterations: 8}]
        """
    ).set_index(["observe_form", "round"])

    assert rows["update_domain"].to_dict() == {
        ("shared", 0): "delta",
        ("parameter_difference", 0): "gradient",
        ("parameter_difference", 1): "gradient",
    }
    delta, difference = rows.loc[("shared", 0)], rows.loc[("parameter_difference", 0)]
    assert difference["psnr_db"] == pytest.approx(delta["psnr_db"], abs=1.0)


def test_what_needs_lengths_or_steps_is_not_applicable(run, trials):
    run(
        """
        defaults:
          data: {name: digits, size: 8}
          model: {name: lenet, convs: 2}
          federation: {algorithm: fedprox, clients: 20, rounds: 0, batch_size: 4}
          observe: {form: parameter_difference}
          targets: 1
        matrix:
          threat_model.knowledge.local_hyperparameters: [false]
          attack: [dlg, {name: inverting_gradients, unroll: true}]
        """
    )
    rows = trials().set_index("attack")
    reasons = rows["error"]

    assert set(rows["status"]) == {"not_applicable"}
    assert "matches lengths" in reasons["dlg"]
    assert "needs observe.form: shared" in reasons["inverting_gradients"]
