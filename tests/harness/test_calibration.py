"""Calibration: what is measured, what is left out, what is chosen."""

import pytest
import torch

from attacks.catalog import InvertingGradientsConfig
from attacks.engine.formulations import FORMULATIONS, Layers
from attacks.engine.graphs import UnsupportedModelError
from attacks.engine.native.build import compiler
from attacks.engine.table import NATIVE, REFERENCE, Choice, EngineTable
from harness.alike import AlikeTasks
from harness.calibration import Calibration, Speed, best, calibrated, is_sound

SMALL = {"size": 16, "knows_labels": True, "device": torch.device("cpu")}


@pytest.fixture(name="alike")
def alike_fixture():
    return AlikeTasks.on("lenet", {"convs": 2}, **SMALL)


def test_every_choice_that_works_is_timed_the_fastest_first(alike):
    calibration = Calibration(lanes=(1, 16), formulations=("layers", "reference"), iterations=1, repeats=1)
    speeds = calibration.measure(alike)

    assert {speed.choice for speed in speeds} == {Choice("layers", 1), Choice("layers", 16), REFERENCE}
    assert [speed.seconds for speed in speeds] == sorted(speed.seconds for speed in speeds)
    assert speeds[0].seconds > 0


def test_of_about_equal_choices_the_narrowest_is_best():
    speeds = [
        Speed(Choice("layers", 32), 0.99),
        Speed(Choice("layers", 16), 1.0),
        Speed(Choice("vmap", 1), 1.2),
        Speed(REFERENCE, 4.0),
    ]
    assert best(speeds) == Choice("layers", 16)
    assert best([speed._replace(seconds=speed.seconds / 2) for speed in speeds[:1]] + speeds[1:]) == Choice(
        "layers", 32
    )


def test_the_table_names_what_stands_in_for_the_native_kernel(alike):
    layers = Speed(Choice("layers", 16), 2.0)
    speeds = [Speed(NATIVE, 1.0), layers, Speed(REFERENCE, 4.0)]
    table = calibrated(EngineTable(), alike, speeds)

    assert table.choices("lenet,activation=sigmoid,convs=2", "cpu") == (NATIVE, layers.choice)
    assert table.choices("lenet,activation=sigmoid,convs=3", "cpu") == (REFERENCE,)
    assert calibrated(table, alike, speeds[1:]) == EngineTable({"cpu": {"lenet,convs=2": layers.choice}})


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
def test_the_native_kernel_is_timed_where_l_bfgs_is_the_attack(alike):
    calibration = Calibration(lanes=(1, 16), formulations=("native", "reference"), iterations=1, repeats=1)
    relu = AlikeTasks.on("lenet", {"convs": 2, "activation": "relu"}, **SMALL)

    assert {speed.choice for speed in calibration.measure(alike)} == {NATIVE, REFERENCE}
    assert not is_sound(relu, "native")


class Wrong(Layers):
    """A formulation that counts the head's weights twice."""

    def gradients(self, inputs, labels, task, names):
        rows = super().gradients(inputs, labels, task, names)
        return {name: row * (2 if name == names[-2] else 1) for name, row in rows.items()}


class WrongProducts(Layers):
    """A formulation that counts the head's weights twice where it takes products with them."""

    def products(self, inputs, labels, task, names):
        found = super().products(inputs, labels, task, names)
        dots = {name: dot * (2 if name == names[-2] else 1) for name, dot in found.dots.items()}
        return found._replace(dots=dots)


@pytest.mark.parametrize("wrong", [Wrong, WrongProducts])
def test_a_formulation_with_another_gradient_is_left_out(alike, monkeypatch, wrong):
    assert is_sound(alike, "layers")
    monkeypatch.setitem(FORMULATIONS, "layers", wrong)
    assert not is_sound(alike, "layers")


def test_a_formulation_that_cannot_compute_the_model_is_left_out(alike, monkeypatch):
    def refuse(model, lanes):
        raise UnsupportedModelError("not this one")

    monkeypatch.setitem(FORMULATIONS, "layers", refuse)
    calibration = Calibration(lanes=(1,), formulations=("layers", "reference"), iterations=1, repeats=1)

    assert [speed.choice for speed in calibration.measure(alike)] == [REFERENCE]


def test_tasks_are_the_same_whenever_they_are_made(alike):
    one, same, other = (alike.task(index, InvertingGradientsConfig()) for index in (3, 3, 4))
    assert torch.equal(alike.image(3), alike.image(3))
    for name, tensor in one.observation.update.tensors.items():
        assert torch.equal(tensor, same.observation.update.tensors[name])
        assert not torch.equal(tensor, other.observation.update.tensors[name])


def test_lbfgs_wants_exact_gradients_and_signed_adam_does_not(alike):
    """A difference in single precision is off by a thousandth."""
    relu = AlikeTasks.on("lenet", {"convs": 2, "activation": "relu"}, **SMALL)

    assert not is_sound(alike, "difference")
    assert is_sound(relu, "difference")
