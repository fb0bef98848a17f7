"""The defenses of the notebook that this project grew from, as it ran them: each on what the last left."""

import numpy as np
import pytest
import torch

from defenses import DEFENSES
from fl.seeds import Streams
from harness.config.matrix import load_matrix
from harness.testing import SmallProblem

MATRIX = """
version: 1
name: notebook
seeds: [0]
defaults:
  data: {name: digits, size: 16}
  model: {name: lenet, convs: 2}
  federation: {batch_size: 1}
matrix:
  defense:
    - {name: pruning, ratio: 0.2, variant: as_released}
    - {chain: [{name: pruning, ratio: 0.2, variant: as_released}, fixed_step]}
    - chain:
        - {name: pruning, ratio: 0.2, variant: as_released}
        - fixed_step
        - {name: gaussian, sigma: 1e-3}
  attack: [dlg]
"""


@pytest.fixture
def defenses(tmp_path):
    path = tmp_path / "notebook.yaml"
    path.write_text(MATRIX)
    specs = list(load_matrix(path).expand())
    assert [spec.noise_budget for spec in specs] == [0.2, 1 / 15, 1e-3]
    return [DEFENSES.implementation(spec.defense.name)(spec.defense.config) for spec in specs]


def recompute(gradient, stages, noise):
    """What the notebook's loop did to its one list of gradients, which it never restored."""
    gradient = np.abs(gradient)
    smallest = np.argsort(gradient.flatten(), kind="stable")[: int(0.2 * gradient.size + 0.5)]
    gradient.flat[smallest] = 0
    if stages > 1:
        gradient = np.round(15 * gradient) / 15
    if stages > 2:
        gradient = gradient + 1e-3 * noise
    return gradient


def test_a_matrix_expresses_the_stacked_runs(defenses):
    small = SmallProblem(channels=3)
    clean = small.update
    for stages, defense in enumerate(defenses, start=1):
        client = defense.for_client(small.client_context)
        protected = client.protect(clean, small.step(Streams(0).torch("protect"))).tensors
        stream = Streams(0).torch("protect")
        for name, tensor in clean.tensors.items():
            noise = torch.randn(tensor.shape, generator=stream).numpy()
            expected = recompute(tensor.numpy(), stages, noise)
            np.testing.assert_allclose(protected[name].numpy(), expected, rtol=1e-5, atol=1e-7)


def test_stacking_gives_another_result_than_each_alone(defenses):
    small = SmallProblem(channels=3)

    def protect(defense):
        client = defense.for_client(small.client_context)
        return client.protect(small.update, small.step(Streams(0).torch("protect"))).tensors["head.weight"]

    alone = [
        DEFENSES.implementation(name)(DEFENSES.get(name).config())
        for name in ("pruning", "fixed_step", "gaussian")
    ]
    results = [protect(defense) for defense in (*defenses, *alone)]
    for index, result in enumerate(results):
        assert not any(torch.equal(result, other) for other in results[index + 1 :])


def test_signs_are_lost_where_the_default_keeps_them(defenses):
    small = SmallProblem()
    released = defenses[0].for_client(small.client_context)
    standard = DEFENSES.implementation("pruning")(DEFENSES.get("pruning").config())
    step = small.step(Streams(0).torch("protect"))
    clean = small.update.tensors["head.bias"]
    kept = standard.for_client(small.client_context).protect(small.update, step).tensors["head.bias"]
    lost = released.protect(small.update, step).tensors["head.bias"]
    assert float(clean.min()) < 0
    assert int(kept.argmin()) == int(clean.argmin())
    assert float(lost.min()) == 0
