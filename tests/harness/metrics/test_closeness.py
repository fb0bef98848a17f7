"""The numbers beside a snapshot are means of the metrics beside a reconstruction."""

import pytest
import torch

from harness.metrics import closeness as module
from harness.metrics import image
from harness.metrics.closeness import closeness
from harness.metrics.comparison import Sides, Truth


def draw(n, *, seed):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def sides(truth, *guesses):
    ids = tuple(f"image-{index}" for index in range(len(truth)))
    return [Sides(Truth(truth, ids), guess) for guess in guesses]


def test_it_is_the_mean_over_pairs_in_their_best_order(make_pairs):
    truth = draw(3, seed=0)
    guess = (truth + torch.tensor([0.01, 0.02, 0.03]).view(3, 1, 1, 1) * draw(3, seed=1)).clamp(0, 1)
    pairs = make_pairs(truth, guess)
    (found,) = closeness(sides(truth, guess[[2, 0, 1]]))
    assert found.mse == pytest.approx(float(image.mse(pairs).mean()))
    assert found.psnr_db == pytest.approx(float(image.psnr_db(pairs).mean()))


def test_values_outside_the_range_are_clamped():
    truth = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    (found,) = closeness(sides(truth, torch.tensor([-3.0, 7.0]).view(1, 1, 1, 2)))
    assert found.mse == 0


def test_what_is_missing_or_not_finite_counts_as_lost():
    truth = draw(2, seed=0)
    broken = torch.stack([truth[1], torch.full((1, 8, 8), torch.nan)])
    assert closeness(sides(truth, truth[:1], broken, truth[:0])) == [(0.5, 50), (0.5, 50), (1, 0)]


def test_each_set_of_guesses_is_compared_on_its_own(monkeypatch):
    guesses = [draw(n, seed=n) for n in (3, 1, 2, 2)]
    guesses[2][0, 0, 0, 0] = torch.inf
    compared = [*sides(draw(2, seed=0), *guesses), *sides(draw(3, seed=9), *guesses)]
    together = closeness(compared)
    assert len(set(together)) == 8
    assert together == [closeness([one])[0] for one in compared]
    monkeypatch.setattr(module, "VALUES_AT_ONCE", 400)  # two sets at a time
    assert together == closeness(compared)
    assert closeness([]) == []
