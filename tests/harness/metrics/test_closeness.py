"""The numbers beside a snapshot are means of the metrics beside a reconstruction."""

import pytest
import torch

from harness.metrics import image
from harness.metrics.closeness import closeness


def draw(n, *, seed):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_mean_over_pairs_in_their_best_order(make_pairs):
    truth = draw(3, seed=0)
    guess = (truth + torch.tensor([0.01, 0.02, 0.03]).view(3, 1, 1, 1) * draw(3, seed=1)).clamp(0, 1)
    pairs = make_pairs(truth, guess)
    found = closeness(truth, guess[[2, 0, 1]])
    assert found.mse == pytest.approx(float(image.mse(pairs).mean()))
    assert found.psnr_db == pytest.approx(float(image.psnr_db(pairs).mean()))


def test_values_outside_the_range_are_clamped():
    truth = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    assert closeness(truth, torch.tensor([-3.0, 7.0]).view(1, 1, 1, 2)).mse == 0


def test_what_is_missing_or_not_finite_counts_as_lost():
    truth = draw(2, seed=0)
    assert closeness(truth, truth[:1]) == (0.5, 50)
    assert closeness(truth, torch.stack([truth[1], torch.full((1, 8, 8), torch.nan)])) == (0.5, 50)
    assert closeness(truth, truth[:0]) == (1, 0)
