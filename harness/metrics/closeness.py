"""How close an attack's current images come to the private ones: two cheap numbers for every snapshot."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from harness.metrics.comparison import is_finite
from harness.metrics.image import squared_error, to_psnr_db
from harness.metrics.matching import match


class Closeness(NamedTuple):
    """Means over a target's private images; a missing or not finite guess counts as an error of 1.

    Attributes:
        mse: Mean squared error of pixels in [0, 1].
        psnr_db: Peak signal-to-noise ratio, data range 1.
    """

    mse: float
    psnr_db: float


def closeness(truth: Tensor, guess: Tensor) -> Closeness:
    """Compare guesses, `m x C x H x W`, with n >= 1 private images, `n x C x H x W` in [0, 1].

    They are matched and clamped as for the metrics of the final reconstruction, whose means these are for the
    last snapshot.
    """
    guess = guess.detach().cpu().float()
    finite = is_finite(guess)
    guess = torch.nan_to_num(guess).clamp(0.0, 1.0)
    errors = torch.ones(len(truth), dtype=torch.float64)
    for index, partner in enumerate(match(truth, guess, finite)):
        if partner is not None and finite[partner]:
            errors[index] = squared_error(truth[index : index + 1], guess[partner : partner + 1])[0]
    return Closeness(float(errors.mean()), float(to_psnr_db(errors).mean()))
