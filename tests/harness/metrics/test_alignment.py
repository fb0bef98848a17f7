import itertools

import pytest
import torch

from harness.metrics import alignment, image


def draw(shape, *, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_finds_the_least_error_of_all_shifts_and_mirrorings(channels, seed):
    truth, guess = draw((channels, 6, 9), seed=seed), draw((channels, 6, 9), seed=seed + 100)
    errors = [
        (truth - view.roll(shift, dims=(-2, -1))).double().square().mean().item()
        for view in (guess, guess.flip(-1))
        for shift in itertools.product(range(6), range(9))
    ]
    found = alignment.align(truth[None], guess[None])
    assert image.squared_error(truth[None], found).item() == pytest.approx(min(errors), rel=1e-6)


def test_undoes_a_shift_and_mirroring(retina, make_pairs):
    displaced = retina.flip(-1).roll((7, -19), dims=(-2, -1))
    pairs = make_pairs(retina, displaced)
    assert image.psnr_db(pairs).item() < 20
    assert alignment.aligned_psnr_db(pairs).item() == 100
    assert alignment.aligned_ssim(pairs).item() == pytest.approx(1)
    assert alignment.aligned_ncc(pairs).item() == pytest.approx(1)


def test_never_falls_below_the_plain_psnr(make_pairs):
    truth, guess = draw((8, 3, 16, 16), seed=1), draw((8, 3, 16, 16), seed=2)
    pairs = make_pairs(truth, guess)
    assert (alignment.aligned_psnr_db(pairs) >= image.psnr_db(pairs)).all()


def test_leaves_constant_images_alone():
    gray = torch.full((1, 1, 8, 8), 0.5)
    assert torch.equal(alignment.align(gray, gray), gray)
