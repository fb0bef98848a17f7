"""Steering, scaling and placing of noise: what each may and may not do."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from defenses.cards_shadowdef import ShadowDefConfig
from defenses.shadowdef import injection
from fl.seeds import Streams

SEEDS = st.integers(0, 999)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(SEEDS, st.floats(0, 1))
def test_steering_never_grows_or_flips_noise(seed, alpha):
    noise, cam = draw(seed, 3, 2, 6, 6), draw(seed + 1, 3, 6, 6).relu()
    steered = injection.steer(noise, cam, alpha)
    assert bool((steered.abs() <= noise.abs()).all())
    assert bool((steered * noise >= 0).all())


def test_steering_weakens_noise_where_the_classifier_looks():
    noise = draw(0, 2, 3, 12, 12).exp()
    area = injection.salient(draw(1, 2, 12, 12).sigmoid(), 0.3)
    ratio = injection.steer(noise, area, 0.5).abs() / noise.abs()
    inside = (area > 0).unsqueeze(1).expand_as(ratio)
    assert float(ratio[inside].mean()) < float(ratio[~inside].mean()) == 1.0
    peak = area == area.amax((1, 2), keepdim=True)
    torch.testing.assert_close(ratio[peak.unsqueeze(1).expand_as(ratio)], torch.full((6,), 0.5))


def test_an_image_without_saliency_keeps_its_noise():
    noise = draw(0, 2, 1, 4, 4)
    assert torch.equal(injection.steer(noise, torch.zeros(2, 4, 4), 0.5), noise)


def test_the_released_steering_flips_signs_and_hardly_depends_on_the_map():
    """Spec section 1, stage 4: P is numerically almost uniform, so that a map and its inverse do the same."""
    noise = torch.softmax(draw(0, 1, 3 * 224 * 224), 1).view(1, 3, 224, 224)
    cam = draw(1, 1, 224, 224).sigmoid()
    spread = torch.softmax(injection.salient(cam, 0.3).flatten(1) / 20, 1)
    assert 1.9e-5 < float(spread.min()) < float(spread.max()) < 2.1e-5
    one, other = (
        injection.steer_flat(noise, injection.salient(map_, 0.3), 0.1, temperature=20)
        for map_ in (cam, 1 - cam)
    )
    torch.testing.assert_close(one, noise - 0.1 * spread.view(1, 1, 224, 224))
    assert float((one - other).norm() / one.norm()) < 0.02
    assert bool((injection.steer_flat(noise, cam, 0.5, temperature=20) * noise < 0).any())


@given(SEEDS, st.sampled_from([0.05, 0.3, 1.0]))
def test_the_most_salient_share_of_pixels_is_kept(seed, share):
    cam = draw(seed, 2, 10, 10).sigmoid()
    area = injection.salient(cam, share)
    assert [(one > 0).sum() for one in area] == [round(100 * share)] * 2
    kept = area > 0
    assert torch.equal(area[kept], cam[kept])
    if share < 1:
        assert float(cam[kept].min()) >= float(cam[~kept].min())
        for one, its in zip(cam, kept, strict=True):
            assert float(one[its].min()) > float(one[~its].max())


@pytest.mark.parametrize(("round_", "alpha", "rho"), [(0, 0.1, 0.19), (25, 0.25, 0.244), (99, 0.5, 0.511)])
def test_schedules(round_, alpha, rho):
    config = ShadowDefConfig()
    assert injection.attenuation(config, round_, 100) == alpha
    assert injection.peak(config, round_, 100) == pytest.approx(rho, abs=1e-3)
    assert injection.peak(config, round_, 100) == 0.19 * math.exp(round_ / 100)
    steady = ShadowDefConfig(noise_rescale=0.3, noise_increase=0)
    assert injection.peak(steady, round_, 100) == 0.3


def test_the_largest_noise_is_a_share_of_the_largest_value():
    noise, inputs = draw(0, 4, 3, 8, 8).exp(), draw(1, 4, 3, 8, 8)
    noisy = inputs + injection.rescale(noise, inputs, 0.19)
    largest = (noisy - inputs).amax((1, 2, 3))
    torch.testing.assert_close(largest, 0.19 * inputs.amax((1, 2, 3)))


@pytest.mark.parametrize("placement", ["map", "gaussian", "permuted"])
def test_placements_have_the_same_energy(placement):
    noise = draw(0, 5, 3, 16, 16).exp() * torch.tensor([1e-3, 0.1, 1, 5, 0]).view(5, 1, 1, 1)
    placed = injection.place(noise, placement, Streams(0).torch("step"))
    energy, expected = (each.double().square().sum((1, 2, 3)).sqrt() for each in (placed, noise))
    torch.testing.assert_close(energy, expected, rtol=1e-6, atol=0)


def test_permuted_noise_keeps_pixels_together_and_images_apart():
    noise = draw(0, 2, 3, 8, 8)
    noise[1] = noise[0]
    placed = injection.place(noise, "permuted", Streams(0).torch("step"))
    pixels, shuffled = noise[0].flatten(1).T.tolist(), placed[0].flatten(1).T.tolist()
    assert sorted(shuffled) == sorted(pixels)
    assert shuffled != pixels
    assert not torch.equal(placed[0], placed[1])


def test_gaussian_noise_is_white():
    placed = injection.place(draw(0, 1, 1, 64, 64).exp(), "gaussian", Streams(0).torch("step"))[0, 0]
    row = torch.corrcoef(torch.stack([placed[:, 1:].flatten(), placed[:, :-1].flatten()]))[0, 1]
    assert abs(float(row)) < 0.05
    assert abs(float(placed.mean() / placed.std())) < 0.05


def test_a_map_draws_nothing():
    stream = Streams(0).torch("step")
    before = stream.get_state()
    injection.place(draw(0, 1, 1, 4, 4), "map", stream)
    assert torch.equal(stream.get_state(), before)
