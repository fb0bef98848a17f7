import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import zoom
from skimage import metrics as reference
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from harness.metrics import METRICS, image

SHAPES = [(1, 16, 16), (1, 28, 28), (3, 32, 32), (3, 40, 24)]


def draw(shape, *, seed, n=3):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_mse_and_psnr_agree_with_scikit_image_and_torchmetrics(shape, make_pairs):
    truth, guess = draw(shape, seed=0), draw(shape, seed=1)
    pairs = make_pairs(truth, guess)
    for i, (error, psnr) in enumerate(zip(image.mse(pairs), image.psnr_db(pairs), strict=True)):
        a, b = truth[i].double().numpy(), guess[i].double().numpy()
        assert error.item() == pytest.approx(reference.mean_squared_error(a, b), rel=1e-12)
        assert psnr.item() == pytest.approx(reference.peak_signal_noise_ratio(a, b, data_range=1), rel=1e-12)
        other = peak_signal_noise_ratio(guess[i], truth[i], data_range=1.0).item()
        assert psnr.item() == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_published_conventions_agree_with_scikit_image_on_images_from_minus_1_to_1(shape, make_pairs):
    truth, guess = draw(shape, seed=0), draw(shape, seed=1)
    pairs = make_pairs(truth, guess)
    for i, (error, psnr) in enumerate(zip(image.mse_i(pairs), image.psnr_ref_db(pairs), strict=True)):
        a, b = (2 * images[i].double().numpy() - 1 for images in (truth, guess))
        assert error.item() == pytest.approx(reference.mean_squared_error(a, b), rel=1e-12)
        assert psnr.item() == pytest.approx(reference.peak_signal_noise_ratio(a, b, data_range=1), abs=1e-12)


def test_black_against_white_is_the_worst_of_the_published_conventions(make_pairs):
    pairs = make_pairs(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
    assert image.mse_i(pairs).item() == 4
    assert image.psnr_ref_db(pairs).item() == pytest.approx(-6.0206, abs=5e-5)
    assert METRICS.get("psnr_ref_db").lower == pytest.approx(-10 * math.log10(4), rel=1e-15)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_ssim_agrees_with_scikit_image_and_torchmetrics(shape, noise, make_pairs):
    truth = draw(shape, seed=2)
    guess = (truth + noise * (draw(shape, seed=3) - 0.5)).clamp(0, 1)
    ours = image.ssim(make_pairs(truth, guess))
    for i, value in enumerate(ours):
        expected = reference.structural_similarity(
            truth[i].double().numpy(),
            guess[i].double().numpy(),
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
        )
        assert value.item() == pytest.approx(expected, abs=1e-12)
    _, everywhere = structural_similarity_index_measure(
        guess.double(), truth.double(), data_range=1.0, reduction="none", return_full_image=True
    )
    inside = everywhere[..., 5:-5, 5:-5]  # torchmetrics also averages over its padded border
    torch.testing.assert_close(ours, inside.mean((1, 2, 3)), atol=1e-12, rtol=0)


def test_small_images_are_upsampled_before_ssim(make_pairs):
    truth, guess = draw((1, 8, 8), seed=4), draw((1, 8, 8), seed=5)
    assert image.ssim_size(truth) == 16
    assert image.ssim_size(draw((1, 16, 20), seed=0)) is None
    # scipy's spline of order 1 over cell centres is the same bilinear interpolation
    big = [zoom(x[0, 0].double().numpy(), 2, order=1, mode="nearest", grid_mode=True) for x in (truth, guess)]
    expected = reference.structural_similarity(
        *big, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
    )
    assert image.ssim(make_pairs(truth[:1], guess[:1])).item() == pytest.approx(expected, abs=1e-12)


def test_upsampling_keeps_the_aspect_ratio():
    assert image.upsample(draw((3, 10, 20), seed=0), 16).shape[-2:] == (16, 32)


def test_exact_images_reach_the_best_values(make_pairs):
    truth = draw((3, 32, 32), seed=6)
    pairs = make_pairs(truth, truth.clone())
    assert image.mse(pairs).tolist() == [0, 0, 0]
    assert image.psnr_db(pairs).tolist() == [100, 100, 100]
    assert image.success(pairs).tolist() == [1, 1, 1]
    torch.testing.assert_close(image.ssim(pairs), torch.ones(3).double())
    torch.testing.assert_close(image.ncc(pairs), torch.ones(3).double())


def test_psnr_is_capped_and_never_negative():
    errors = torch.tensor([0.0, 1e-12, 1e-10, 1e-2, 1.0]).double()
    torch.testing.assert_close(
        image.to_psnr_db(errors), torch.tensor([100.0, 100.0, 100.0, 20.0, 0.0]).double()
    )


def test_success_begins_at_20_db(make_pairs):
    truth = torch.zeros(2, 1, 16, 16)
    guess = torch.stack([torch.full((1, 16, 16), 0.0999), torch.full((1, 16, 16), 0.1001)])
    assert image.success(make_pairs(truth, guess)).tolist() == [1, 0]


def test_constant_images(make_pairs):
    black, white = torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)
    opposite = make_pairs(black, white)
    assert image.mse(opposite).item() == 1
    assert image.psnr_db(opposite).item() == 0
    assert image.ssim(opposite).item() == pytest.approx(1e-4 / (1 + 1e-4))  # C1 / (1 + C1)
    assert image.ncc(opposite).item() == 0
    assert image.ssim(make_pairs(white, white)).item() == pytest.approx(1)
    assert image.ncc(make_pairs(white, white)).item() == 0


def test_ncc_is_the_correlation_coefficient(make_pairs):
    truth, guess = draw((3, 16, 16), seed=7), draw((3, 16, 16), seed=8)
    for value, a, b in zip(image.ncc(make_pairs(truth, guess)), truth, guess, strict=True):
        expected = np.corrcoef(a.double().flatten().numpy(), b.double().flatten().numpy())[0, 1]
        assert value.item() == pytest.approx(expected, abs=1e-12)


@given(gain=st.floats(0.05, 1), offset=st.floats(0, 1))
def test_ncc_is_blind_to_brightness_and_contrast(gain, offset, make_pairs):
    truth = draw((1, 16, 16), seed=9)
    pairs = make_pairs(truth, gain * truth + offset * (1 - gain))
    torch.testing.assert_close(image.ncc(pairs), torch.ones(3).double(), atol=1e-5, rtol=0)


@given(order=st.permutations(range(5)))
def test_a_pairs_value_does_not_depend_on_its_companions(order, make_pairs):
    truth, guess = draw((3, 20, 20), seed=10, n=5), draw((3, 20, 20), seed=11, n=5)
    for metric in (image.mse, image.ssim, image.ncc):
        together = metric(make_pairs(truth, guess))
        assert torch.equal(metric(make_pairs(truth[order], guess[order])), together[order])
        assert torch.equal(metric(make_pairs(truth[:1], guess[:1])), together[:1])
