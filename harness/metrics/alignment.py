"""Pixel metrics after the best shift and mirroring, for reconstructions that are right but displaced.

A network that is almost invariant to shifts and mirroring leaves both undetermined, so a plainly visible
image can score like a constant one. These columns are labelled `aligned`, since the alignment is found with
the truth; floors and controls are aligned in the same way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.metrics import image
from harness.metrics.pairs import Pairs


def aligned_psnr_db(pairs: Pairs) -> Tensor:
    """Return the largest PSNR over all circular shifts and left-right mirroring, `k`."""
    return image.psnr_db(pairs.aligned)


def aligned_ssim(pairs: Pairs) -> Tensor:
    """Return the SSIM at the alignment with the largest PSNR, `k`."""
    return image.ssim(pairs.aligned)


def aligned_ncc(pairs: Pairs) -> Tensor:
    """Return the normalised cross-correlation at the alignment with the largest PSNR, `k`."""
    return image.ncc(pairs.aligned)


def align(truth: Tensor, guess: Tensor) -> Tensor:
    """Return each guess (`k x C x H x W`) as shifted and mirrored as makes its squared error least.

    A circular shift keeps an image's norm, so the least error is where the circular cross-correlation, summed
    over channels, is largest; a fast Fourier transform gives it for all shifts at once.
    """
    mirrored = guess.flip(-1)
    candidates = torch.stack([guess, _best_shift(truth, guess), _best_shift(truth, mirrored)])
    errors = (truth.double() - candidates.double()).square().sum((-3, -2, -1))  # 3 x k
    best = errors.argmin(0)  # of ties the first
    return candidates[best, torch.arange(len(guess))]


def _best_shift(truth: Tensor, guess: Tensor) -> Tensor:
    product = torch.fft.rfft2(truth.double()) * torch.fft.rfft2(guess.double()).conj()
    correlation = torch.fft.irfft2(product, s=truth.shape[-2:]).sum(1)  # k x H x W: by how much to roll
    height, width = truth.shape[-2:]
    shift = correlation.flatten(1).argmax(1)[:, None]
    rows = (torch.arange(height) - shift // width) % height  # k x H: where each row comes from
    columns = (torch.arange(width) - shift % width) % width
    rolled = guess.gather(2, rows[:, None, :, None].expand_as(guess))
    return rolled.gather(3, columns[:, None, None, :].expand_as(guess))
