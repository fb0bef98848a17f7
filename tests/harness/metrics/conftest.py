"""Images and weights that the metrics' tests share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data, transform

from harness.metrics.networks import VGG16
from harness.metrics.pairs import Instruments, Pairs, Unavailable
from harness.metrics.perceptual import Perceptual, find_perceptual

NOTHING = Instruments(Unavailable("none"), Unavailable("none"), Unavailable("none"))


def paired(truth, guess, instruments=NOTHING):
    return Pairs(truth, guess, tuple(f"image-{i}" for i in range(len(truth))), instruments)


@pytest.fixture(scope="session")
def make_pairs():
    return paired


@pytest.fixture(scope="session")
def retina() -> torch.Tensor:
    """A 1 x 3 x 64 x 64 photograph."""
    small = transform.resize(data.retina(), (64, 64), anti_aliasing=True)
    return torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))[None].float()


@pytest.fixture(scope="session")
def perceptual() -> Perceptual:
    found = find_perceptual()
    if isinstance(found, Unavailable):
        pytest.skip(found.reason)
    return found


@pytest.fixture(scope="session")
def perceptual_vgg() -> Perceptual:
    found = find_perceptual(VGG16)
    if isinstance(found, Unavailable):
        pytest.skip(found.reason)
    return found
