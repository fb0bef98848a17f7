"""The relative data leakage value, against scikit-image."""

from __future__ import annotations

import pytest
import torch
from skimage.metrics import structural_similarity

from fl.errors import NotApplicableError
from harness.metrics.pairs import Instruments, Pairs, Unavailable
from harness.metrics.relative import Prior, rdlv

NONE = Unavailable("none")


def pairs_with(prior, truth, guess):
    ids = tuple(map(str, range(len(truth))))
    return Pairs(truth, guess, ids, Instruments(NONE, NONE, NONE, prior=prior))


def similarity(one, other):
    return structural_similarity(
        one[0].double().numpy(),
        other[0].double().numpy(),
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


@pytest.fixture
def images(retina):
    gray = retina.mean(1, keepdim=True)
    return torch.cat([gray, gray.flip(-1), gray.flip(-2)])


def test_it_is_the_gain_over_the_mean_image(images):
    generator = torch.Generator().manual_seed(0)
    guess = (images + 0.1 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    mean = images.mean(0)
    got = rdlv(pairs_with(Prior(mean), images, guess)).tolist()
    for value, truth, one in zip(got, images, guess, strict=True):
        prior = similarity(truth, mean)
        assert value == pytest.approx((similarity(truth, one) - prior) / prior)


def test_the_mean_image_itself_gains_nothing(images):
    mean = images.mean(0)
    prior = Prior(mean)
    assert rdlv(pairs_with(prior, images, mean.expand_as(images))).tolist() == [0, 0, 0]
    again = rdlv(pairs_with(prior, images, images))
    assert again.tolist() == pytest.approx([1 / similarity(truth, mean) - 1 for truth in images])


def test_it_is_undefined_where_the_mean_image_is_no_better_than_nothing(images):
    noise = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    values = rdlv(pairs_with(Prior(1 - noise[0]), noise, noise))
    assert similarity(noise[0], 1 - noise[0]) < 0
    assert values.isnan().all()
    with pytest.raises(NotApplicableError, match="no public images"):
        rdlv(pairs_with(Unavailable("no public images"), images, images))
