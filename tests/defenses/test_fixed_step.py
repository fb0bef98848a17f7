from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defenses.catalog import FixedStepConfig
from defenses.fixed_step import FixedStep
from fl.seeds import Streams
from fl.types import Update
from harness.testing import SmallProblem


def protect(tensors, step, small=None):
    small = small or SmallProblem()
    client = FixedStep(FixedStepConfig(step=step)).for_client(small.client_context)
    update = Update(small.kind, tensors, {}, 1)
    return client.protect(update, small.step(Streams(0).torch("protect"))).tensors


def test_the_default_is_the_notebooks_fifteenths():
    tensors = SmallProblem(channels=3).update.tensors
    rounded = protect(tensors, FixedStepConfig().step)
    for name, tensor in tensors.items():
        expected = np.round(15 * tensor.numpy()) / 15
        np.testing.assert_allclose(rounded[name].numpy(), expected, rtol=1e-6)
    assert any(rounded[name].any() for name in tensors)


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40), st.sampled_from([0.25, 0.5, 2.0]))
@settings(max_examples=50)
def test_entries_go_to_the_nearest_multiple_without_limit(values, step):
    rounded = protect({"a": torch.tensor(values)}, step)["a"].double().numpy()
    np.testing.assert_array_equal(rounded / step, np.round(np.array(values) / step))
    assert np.abs(rounded - values).max() <= step / 2


def test_on_a_delta_the_step_is_in_units_of_the_gradient():
    small = SmallProblem(kind="delta", steps=4, lr=0.05)
    rounded = protect({"a": torch.tensor([0.5, -0.09, 1.11])}, 1.0, small)["a"]
    torch.testing.assert_close(rounded, torch.tensor([0.4, 0.0, 1.2]))


@pytest.mark.parametrize("kind", ["gradient", "delta"])
def test_an_adaptive_attacker_knows_the_step_in_units_of_the_update(kind):
    small = SmallProblem(kind=kind, steps=4, lr=0.05, defense=FixedStep(FixedStepConfig(step=0.1)))
    expected = 0.1 if kind == "gradient" else 0.1 * 0.05 * 4
    assert float(small.defense.estimate(small.observation)) == pytest.approx(expected)


def test_without_the_local_training_the_step_is_that_of_a_gradient():
    small = SmallProblem(kind="delta", steps=4, lr=0.05, defense=FixedStep(FixedStepConfig(step=0.1)))
    unknown = replace(small.observation.knowledge, local_training=None)
    observation = replace(small.observation, knowledge=unknown)
    assert float(small.defense.estimate(observation)) == pytest.approx(0.1)


def test_the_mirror_passes_derivatives_on():
    guess = torch.tensor([0.4, -1.2], requires_grad=True)
    mirrored = FixedStep(FixedStepConfig(step=1.0)).mirror(torch.tensor(1.0), {"a": guess})["a"]
    (derivative,) = torch.autograd.grad(mirrored @ torch.tensor([1.0, 2.0]), guess)
    assert mirrored.tolist() == [0.0, -1.0]
    assert derivative.tolist() == [1.0, 2.0]


def test_at_off_the_mirror_changes_nothing():
    guess = {"a": torch.tensor([0.4, -1.2])}
    mirrored = FixedStep(FixedStepConfig(step=0.0)).mirror(torch.tensor(0.0), guess)
    assert torch.equal(mirrored["a"], guess["a"])
