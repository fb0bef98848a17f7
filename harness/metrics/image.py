"""Pixel metrics of pairs in [0, 1], in float64 on the CPU: one value per pair, `k`."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.metrics.catalog import SSIM_MIN_SIZE, SUCCESS_DB
from harness.metrics.declare import PSNR_CAP_DB, REFERENCE_OFFSET_DB
from harness.metrics.pairs import Pairs

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2
MIN_VARIANCE = 1e-12
"""Below this an image counts as constant."""


def mse(pairs: Pairs) -> Tensor:
    """Return the mean squared error over channels and pixels."""
    return squared_error(pairs.truth, pairs.guess)


def psnr_db(pairs: Pairs) -> Tensor:
    """Return 10 log10(1 / mse), at most `PSNR_CAP_DB`."""
    return to_psnr_db(mse(pairs))


def mse_i(pairs: Pairs) -> Tensor:
    """Return the mean squared error of images in [-1, 1]: four times `mse`."""
    return 4.0 * mse(pairs)


def psnr_ref_db(pairs: Pairs) -> Tensor:
    """Return 10 log10(1 / mse_i): peak 1 although images in [-1, 1] have a range of 2."""
    return psnr_db(pairs) - REFERENCE_OFFSET_DB


def success(pairs: Pairs) -> Tensor:
    """Return 1 where the PSNR reaches `SUCCESS_DB`, else 0."""
    return (psnr_db(pairs) >= SUCCESS_DB).double()


def ssim(pairs: Pairs) -> Tensor:
    """Return the structural similarity (Wang et al. 2004, equation 13), mean over channels and windows."""
    return pairs.ssim_map.flatten(1).mean(1)


def ssim_map(truth: Tensor, guess: Tensor) -> Tensor:
    """Return the SSIM of each window of `k x C x H x W` pairs, `k x C x (h - 10) x (w - 10)`.

    Means, variances and covariance are weighted by a Gaussian 11 x 11 window of sigma 1.5 that lies fully
    inside the image; K1 = 0.01, K2 = 0.03, data range 1. Images under 16 pixels are upsampled first, so that
    h and w are the sides of `ssim_size`, else H and W.
    """
    x, y = (upsample(images.double(), ssim_size(images)) for images in (truth, guess))
    mean_x, mean_y = _window(x), _window(y)
    variance_x = _window(x * x) - mean_x**2
    variance_y = _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (variance_x + variance_y + SSIM_C2)
    return luminance * structure


def ncc(pairs: Pairs) -> Tensor:
    """Return Pearson's correlation of all values of an image pair; 0 where either image is constant."""
    x, y = (_centred(images) for images in (pairs.truth, pairs.guess))
    variances = (x * x).mean(1), (y * y).mean(1)
    defined = torch.minimum(*variances) > MIN_VARIANCE
    correlation = (x * y).mean(1) / torch.where(defined, variances[0] * variances[1], 1.0).sqrt()
    return torch.where(defined, correlation, 0.0).clamp(-1.0, 1.0)


def squared_error(truth: Tensor, guess: Tensor) -> Tensor:
    """Return the mean squared error of each of `k x C x H x W` pairs, `k`."""
    return (truth.double() - guess.double()).square().flatten(1).mean(1)


def to_psnr_db(error: Tensor) -> Tensor:
    """Return the capped PSNR of mean squared errors of data with range 1."""
    return -10.0 * error.clamp_min(10.0 ** (-PSNR_CAP_DB / 10.0)).log10()


def ssim_size(images: Tensor) -> int | None:
    """Return the shorter side that `n x C x H x W` images are upsampled to for SSIM, or None."""
    return SSIM_MIN_SIZE if min(images.shape[-2:]) < SSIM_MIN_SIZE else None


def upsample(images: Tensor, shorter_side: int | None) -> Tensor:
    """Return `n x C x H x W` images resized (bilinear) to the given shorter side; None leaves them alone."""
    if shorter_side is None:
        return images
    scale = shorter_side / min(images.shape[-2:])
    size = [round(side * scale) for side in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def _window(images: Tensor) -> Tensor:
    """Return Gaussian-weighted means at all positions where the window fits, channel by channel.

    The window is separable, so it is a banded matrix applied from the left and another from the right; matrix
    products are the fastest way in float64.
    """
    planes = images.flatten(0, 1)  # (k C) x H x W
    rows, columns = (_window_matrix(side).expand(len(planes), -1, -1) for side in planes.shape[1:])
    return (rows @ planes @ columns.mT).reshape(*images.shape[:2], len(rows[0]), len(columns[0]))


@lru_cache(maxsize=8)
def _window_matrix(side: int) -> Tensor:
    """Return `(side - 10) x side`: in each row the window's weights, one pixel further on."""
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    positions = torch.arange(side - SSIM_WINDOW + 1)[:, None] + torch.arange(SSIM_WINDOW)
    matrix = torch.zeros(len(positions), side, dtype=torch.float64)
    return matrix.scatter_(1, positions, (weights / weights.sum()).expand_as(positions))


def _centred(images: Tensor) -> Tensor:
    values = images.double().flatten(1)
    return values - values.mean(1, keepdim=True)
