"""The spec: ids that hold, what depends on other fields, learning rates by round, and what is refused."""

import json
import math

import pytest
from pydantic import ValidationError

from fl.specs import FederationSpec, ObserveSpec, Sizes

BEFORE = {
    "algorithm", "batch_norm", "batch_size", "chunk", "clients", "freeze", "local_epochs", "local_steps",
    "lr", "participation", "partition", "rounds", "server_lr",
}  # fmt: skip
"""The fields when the first results were stored."""


def test_old_ids_hold():
    assert set(json.loads(FederationSpec().canonical)) == BEFORE
    assert set(json.loads(FederationSpec(algorithm="fedavg", local_steps=2).canonical)) == BEFORE
    assert json.loads(ObserveSpec().canonical) == {"clients": 5, "kind": "update", "round": 0, "rounds": None}


@pytest.mark.parametrize(
    ("algorithm", "own"),
    [
        ("fedprox", {"mu": 0.01}),
        ("fedadam", {"beta1": 0.9, "beta2": 0.99, "tau": 1e-3}),
        ("fedadagrad", {"beta1": 0.0, "tau": 1e-3}),
    ],
)
def test_defaults_of_an_algorithm_s_own_options_are_part_of_the_identity(algorithm, own):
    bare, written = FederationSpec(algorithm=algorithm), FederationSpec(algorithm=algorithm, **own)
    found = {name: value for name, value in json.loads(bare.canonical).items() if name not in BEFORE}

    assert found == own
    assert bare.canonical == written.canonical
    assert FederationSpec.model_validate_json(bare.canonical) == bare
    assert FederationSpec.model_validate(bare.model_dump()) == bare
    assert bare.sends == "delta"


def test_an_adaptive_server_takes_smaller_steps_unless_told():
    assert FederationSpec(algorithm="fedadam").server_lr == 0.01
    assert FederationSpec(algorithm="fedadam", server_lr=1.0).server_lr == 1.0
    assert FederationSpec(algorithm="fedprox").server_lr == 1.0


def test_frozen_batch_norm_is_in_eval_mode_whatever_else_is_said():
    frozen = FederationSpec(freeze="batch_norm", batch_norm="train")

    assert frozen.batch_norm == "eval"
    assert frozen.canonical == FederationSpec(freeze="batch_norm").canonical
    assert FederationSpec(freeze="all_but_last", batch_norm="train").batch_norm == "train"


def test_learning_rates_are_functions_of_the_round():
    step = FederationSpec(lr=0.01, rounds=100, schedule={"name": "step", "milestones": (40, 80)})
    cosine = FederationSpec(lr=0.2, rounds=10, schedule={"name": "cosine", "final": 0.1})

    assert [step.lr_at(r) for r in (0, 39)] == [0.01, 0.01]
    assert [step.lr_at(r) for r in (40, 79, 80, 100)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
    assert [cosine.lr_at(r) for r in (0, 5, 10, 11)] == pytest.approx([0.2, 0.2 * 0.55, 0.02, 0.02])
    assert cosine.lr_at(3) == pytest.approx(0.02 + 0.09 * (1 + math.cos(0.3 * math.pi)))
    assert FederationSpec(lr=0.3, rounds=0, schedule={"name": "cosine"}).lr_at(0) == pytest.approx(0.3)
    assert FederationSpec(lr=0.1).lr_at(7) == 0.1


def test_batch_sizes_are_each_client_s_own():
    spec = FederationSpec(clients=3, batch_sizes=(4, 8, 1))

    assert [spec.batch_size_of(c) for c in range(3)] == [4, 8, 1]
    assert spec.mean_batch_size == pytest.approx(13 / 3)
    assert FederationSpec(clients=3, batch_size=5).batch_size_of(2) == 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mu": 0.1}, "mu needs algorithm: fedprox, got fedsgd"),
        ({"algorithm": "fedadagrad", "beta2": 0.9}, "beta2 needs algorithm: fedadam, got fedadagrad"),
        ({"algorithm": "fedavg", "tau": 0.1}, "tau needs algorithm: fedadam or fedadagrad, got fedavg"),
        ({"momentum": 0.9}, "need algorithm: fedavg"),
        ({"weight_decay": 0.1}, "need algorithm: fedavg"),
        ({"clients": 2, "batch_sizes": (1, 2, 3)}, "batch_sizes for each of 2 clients, got 3"),
        ({"clients": 2, "partition": Sizes(sizes=(1,))}, "partition.sizes for each of 2 clients, got 1"),
        ({"clients": 2, "batch_sizes": (1, 2), "batch_size": 4}, "leave batch_size out"),
        ({"algorithm": "fedavg", "local_steps": 2, "local_epochs": 3}, "leave local_epochs out"),
        ({"algorithm": "fedavg", "momentum": 1.0}, "less than 1"),
    ],
)
def test_options_that_nothing_would_read_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        FederationSpec(**fields)


def test_a_parameter_difference_is_of_one_client():
    with pytest.raises(ValidationError, match=r"needs observe\.kind: update"):
        ObserveSpec(kind="aggregate", form="parameter_difference")
