"""The five loss terms against NumPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from defenses.cards_shadowdef import ShadowDefConfig
from defenses.shadowdef.objective import gradient_distance, objective, statistics_distance, total_variation
from defenses.shadowdef.rehearsal import Statistics, Trace

TERMS = ("gradient_weight", "batch_norm_weight", "tv_weight", "l2_weight", "mse_weight")


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trace(seed):
    return Trace(
        (draw(seed, 4, 3), draw(seed + 1, 5)),
        (Statistics(draw(seed + 2, 3), draw(seed + 3, 3)), Statistics(draw(seed + 4, 2), draw(seed + 5, 2))),
    )


def test_total_variation_is_four_frobenius_norms():
    images = draw(0, 2, 3, 5, 7).double()
    x = images.numpy()
    differences = [np.diff(x, axis=3), np.diff(x, axis=2)]
    differences += [x[:, :, 1:, 1:] - x[:, :, :-1, :-1], x[:, :, 1:, :-1] - x[:, :, :-1, 1:]]
    assert float(total_variation(images)) == pytest.approx(sum(np.sqrt((d**2).sum()) for d in differences))


def test_distances_are_sums_of_euclidean_norms():
    one, other = trace(0), trace(10)
    expected = sum(
        np.linalg.norm((a - b).numpy()) for a, b in zip(one.gradients, other.gradients, strict=True)
    )
    assert float(gradient_distance(one, other)) == pytest.approx(expected)
    expected = sum(
        np.linalg.norm((a - b).numpy())
        for ours, theirs in zip(one.statistics, other.statistics, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )
    assert float(statistics_distance(one, other)) == pytest.approx(expected, rel=1e-5)


def test_a_model_without_batch_norm_has_no_such_term():
    bare = Trace(trace(0).gradients, ())
    assert float(statistics_distance(bare, bare)) == 0


@pytest.mark.parametrize("term", TERMS)
def test_each_weight_scales_its_own_term(term):
    inputs, truth, ours, goal = draw(0, 2, 1, 4, 6), draw(1, 2, 1, 4, 6), trace(2), trace(20)
    expected = {
        "gradient_weight": gradient_distance(ours, goal),
        "batch_norm_weight": statistics_distance(ours, goal),
        "tv_weight": total_variation(inputs),
        "l2_weight": inputs.square().sum().sqrt() / 24**2,
        "mse_weight": (inputs - truth).square().sum() / 48,
    }
    only = ShadowDefConfig(**{**dict.fromkeys(TERMS, 0.0), term: 3.0})
    torch.testing.assert_close(objective(only, inputs, truth, ours, goal), 3 * expected[term])


def test_released_weights():
    config = ShadowDefConfig()
    assert [getattr(config, term) for term in TERMS] == [1e-2, 1e-2, 1e-5, 1e2, 1.0]
    assert [config.step_size(n) for n in (1, 4, 8)] == [1e-4, 1e-3, 2e-3]


def test_equal_traces_have_finite_derivatives():
    gradients = draw(0, 4).requires_grad_()
    same = Trace((gradients,), ())
    (derivative,) = torch.autograd.grad(gradient_distance(same, Trace((gradients.detach(),), ())), gradients)
    assert torch.equal(derivative, torch.zeros(4))
