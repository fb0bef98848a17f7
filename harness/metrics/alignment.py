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
    return torch.stack([_align_one(t, g) for t, g in zip(truth, guess, strict=True)]) if len(truth) else guess


def _align_one(truth: Tensor, guess: Tensor) -> Tensor:
    candidates = [_best_shift(truth, view) for view in (guess, guess.flip(-1))]
    errors = [(truth.double() - c.double()).square().sum().item() for c in (guess, *candidates)]
    return (guess, *candidates)[min(range(len(errors)), key=errors.__getitem__)]


def _best_shift(truth: Tensor, guess: Tensor) -> Tensor:
    spectra = (torch.fft.rfft2(images.double()) for images in (truth, guess))
    product = next(spectra) * next(spectra).conj()
    correlation = torch.fft.irfft2(product, s=truth.shape[-2:]).sum(0)  # H x W: by how much to roll
    rows, columns = divmod(int(correlation.argmax()), correlation.shape[1])
    return guess.roll((rows, columns), dims=(-2, -1))
