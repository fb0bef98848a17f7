"""How close an attack's current images come to the private ones: two cheap numbers for every snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from harness.metrics.comparison import VALUES_AT_ONCE, Sides, is_finite
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


def closeness(sides: Sequence[Sides]) -> list[Closeness]:
    """Compare guesses with n >= 1 private images each, all of one shape.

    They are matched and clamped as for the metrics of the final reconstruction, whose means these are for the
    last snapshot.
    """
    found: list[Closeness] = []
    size = max(1, VALUES_AT_ONCE // max(one.guess.numel() + 1 for one in sides)) if sides else 1
    for start in range(0, len(sides), size):
        found += _closeness(sides[start : start + size])
    return found


def _closeness(sides: Sequence[Sides]) -> list[Closeness]:
    joined = torch.cat([one.guess.detach().cpu().float() for one in sides])
    finite, joined = is_finite(joined), torch.nan_to_num(joined).clamp(0.0, 1.0)
    usable = finite.tolist()
    rows, partners = [], []  # where pairs lie among all private images, and among all guesses
    starts, first = [0], 0
    for truth, guess in sides:
        some = slice(first, first + len(guess))
        for index, partner in enumerate(match(truth.images, joined[some], finite[some])):
            if partner is not None and usable[first + partner]:
                rows.append(starts[-1] + index)
                partners.append(first + partner)
        starts.append(starts[-1] + len(truth.images))
        first += len(guess)
    errors = torch.ones(starts.pop(), dtype=torch.float64)
    if rows:
        private = torch.cat([one.truth.images for one in sides])
        errors[rows] = squared_error(private[rows], joined[partners])
    counts = np.diff([*starts, len(errors)])
    means = (np.add.reduceat(values.numpy(), starts) / counts for values in (errors, to_psnr_db(errors)))
    return [Closeness(float(mse), float(psnr_db)) for mse, psnr_db in zip(*means, strict=True)]
