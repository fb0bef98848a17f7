import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.matching import match


def draw(n, *, seed):
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def everywhere(guess):
    return torch.ones(len(guess), dtype=torch.bool)


def total(truth, guess, assignment):
    return sum(
        (truth[i] - guess[j]).double().square().mean().item()
        for i, j in enumerate(assignment)
        if j is not None
    )


@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 4), (3, 5), (5, 3)])
def test_matches_the_brute_force_optimum(n, m):
    truth, guess = draw(n, seed=n), draw(m, seed=50 + m)
    found = match(truth, guess, everywhere(guess))
    assert len([j for j in found if j is not None]) == min(n, m)
    if n <= m:
        options = itertools.permutations(range(m), n)
    else:
        options = (
            [rows.index(i) if i in rows else None for i in range(n)]
            for rows in itertools.permutations(range(n), m)
        )
    best = min(total(truth, guess, option) for option in options)
    assert total(truth, guess, found) == pytest.approx(best, rel=1e-9)


@given(st.permutations(range(6)))
def test_undoes_a_permutation(order):
    truth = draw(6, seed=3)
    found = match(truth, truth[order], everywhere(truth))
    assert [order[j] for j in found] == list(range(6))


def test_what_is_not_finite_is_matched_last():
    truth = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    guess = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4), torch.zeros(1, 4, 4)])
    assert match(truth, guess, torch.tensor([False, True, True])) == (2, 1)
    assert match(truth, guess[:2], torch.tensor([False, True])) == (0, 1)
    # even the worst possible finite guess comes first
    assert match(truth[1:], guess[[0, 2]], torch.tensor([False, True])) == (1,)


def test_nothing_to_match():
    truth = draw(2, seed=0)
    assert match(truth, truth[:0], everywhere(truth[:0])) == (None, None)
    assert match(truth[:0], truth, everywhere(truth)) == ()
