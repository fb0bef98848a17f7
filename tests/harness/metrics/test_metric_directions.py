"""Every card's declared direction agrees with ladders of noise and blur."""

import itertools

import pytest
import torch
from scipy.ndimage import gaussian_filter

from harness.metrics import METRICS
from harness.metrics.pairs import Embedding, Gallery, Instruments, Pairs
from harness.metrics.regions import Regions
from harness.metrics.relative import Prior

PAIR_METRICS = [card.name for card in METRICS if card.kind == "pair"]


@pytest.fixture(scope="module")
def instruments(retina, perceptual, perceptual_vgg):
    strangers = torch.stack([retina[0].flip(-2).roll(k, dims=-1) for k in range(1, 30)])
    names = ("image-0", *(f"s{k}" for k in range(29)))
    gallery = Gallery(names, torch.cat([retina, strangers]), (0,) * 6 + (1,) * 24)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[20:44, 12:40] = True
    project = torch.randn(3 * 64 * 64, 32, generator=torch.Generator().manual_seed(0))
    return Instruments(
        Embedding(perceptual),
        Embedding(lambda x: x.flatten(1) @ project),
        gallery,
        Regions("data_set", {"image-0": mask}),
        Prior(strangers.mean(0)),
        Embedding(perceptual_vgg),
    )


def noisy(image, level):
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    return (image + level * noise).clamp(0, 1)


def blurred(image, sigma):
    return torch.from_numpy(gaussian_filter(image.numpy(), (0, 0, sigma, sigma)))


STEPS = ("success_rate", "identification_top1", "iip_1", "iip_3", "iip_5")
"""These fall in steps, if at all."""
LADDERS = {
    "noise": [(noisy, level) for level in (0.02, 0.1, 0.3, 1.0, 3.0)],
    "blur": [(blurred, sigma) for sigma in (0.5, 1.0, 2.0, 4.0, 8.0)],
}


@pytest.mark.parametrize("ladder", LADDERS)
@pytest.mark.parametrize("name", PAIR_METRICS)
def test_the_more_is_destroyed_the_less_leaks(name, ladder, retina, instruments):
    card = METRICS.get(name)
    guesses = [retina, *(damage(retina, strength) for damage, strength in LADDERS[ladder])]
    metric = METRICS.implementation(name)
    values = [metric(Pairs(retina, guess, ("image-0",), instruments)).item() for guess in guesses]
    leakage = values if card.leaks_more == "higher" else [-value for value in values]
    steps = [after - before for before, after in itertools.pairwise(leakage)]
    if card.name.startswith("iip"):  # a share of few neighbours
        assert leakage[0] >= leakage[-1], values
    else:
        assert max(steps) <= 1e-9, values
    if card.name not in STEPS:
        assert max(steps) < 0, values
    for value in values:
        assert card.lower is None or card.lower - 1e-9 <= value
        assert card.upper is None or value <= card.upper + 1e-9
