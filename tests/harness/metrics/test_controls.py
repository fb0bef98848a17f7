import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.controls import derangement, mean_image, oracle_constant, random_guess


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12), st.integers(0, 2**32))
def test_derangement_moves_every_target_to_another(classes, seed):
    partners = derangement(classes, np.random.default_rng(seed))
    assert sorted(partners) == list(range(len(classes)))
    assert all(partner != index for index, partner in enumerate(partners))


@given(st.lists(st.integers(0, 3), min_size=2, max_size=6), st.integers(0, 2**32))
def test_derangement_stays_within_the_class_as_often_as_possible(classes, seed):
    def within(partners):
        return sum(classes[i] == classes[j] for i, j in enumerate(partners))

    n = len(classes)
    best = max(within(p) for p in itertools.permutations(range(n)) if all(i != j for i, j in enumerate(p)))
    assert within(derangement(classes, np.random.default_rng(seed))) == best


def test_derangement_is_drawn_from_its_stream():
    classes = [0] * 8
    drawn = {derangement(classes, np.random.default_rng(seed)) for seed in range(20)}
    assert len(drawn) > 10
    assert derangement(classes, np.random.default_rng(7)) == derangement(classes, np.random.default_rng(7))


def test_oracle_constant_is_the_best_constant():
    truth = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    constant = oracle_constant(truth)
    assert constant.shape == truth.shape
    best = (truth - constant).square().mean((1, 2, 3))
    for shift in (-0.01, 0.01):
        moved = constant.clone()
        moved[:, 1] += shift
        assert ((truth - moved).square().mean((1, 2, 3)) > best).all()
    torch.testing.assert_close(constant[1, 2, 5, 5], truth[1, 2].mean())


def test_guesses_that_know_nothing():
    like = torch.zeros(3, 1, 4, 4)
    noise = random_guess(like, torch.Generator().manual_seed(1))
    assert noise.shape == like.shape
    assert noise.min() >= 0
    assert noise.max() <= 1
    assert noise.mean().item() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(noise, random_guess(like, torch.Generator().manual_seed(1)))
    mean = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(2))
    assert torch.equal(mean_image(like, mean), torch.stack([mean] * 3))
