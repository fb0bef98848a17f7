"""Numbers from measurements: ratios with intervals, quality, and the part of the peak that was used."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.metrics.catalog import SUCCESS_DB

RESAMPLES = 2000
EVALUATION_FORWARDS = {"layers": 7, "difference": 5, "tangent": 7, "vmap": 8, "native": 7, "reference": 8}
"""Forward passes' worth of floating-point operations in one evaluation of the objective and its gradient."""
SGEMM_SIDE = 1024


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


class Pair(NamedTuple):
    """CPU seconds per trial, measured one right after the other."""

    ours: float
    peer: float


def ratio(pairs: Sequence[Pair]) -> Interval:
    """Return how many times our CPU seconds the peer's are, with a percentile bootstrap over pairs."""
    seconds = np.array(pairs)
    drawn = np.random.default_rng(0).integers(len(seconds), size=(RESAMPLES, len(seconds)))
    sums = seconds[drawn].sum(axis=1)
    low, high = np.quantile(sums[:, 1] / sums[:, 0], (0.025, 0.975))
    ours, peer = seconds.sum(axis=0)
    return Interval(float(peer / ours), float(low), float(high))


def psnr_db(images: Tensor | None, truth: Tensor) -> float:
    """Return the PSNR of `1 x C x H x W` in [0, 1]; of a failure, negative infinity."""
    if images is None:
        return -np.inf
    return float(-10 * torch.log10((images.double() - truth.double()).square().mean()))


def success_rate(qualities: Sequence[float]) -> float:
    """Return the share of trials at 20 dB or more."""
    return float(np.mean(np.array(qualities) >= SUCCESS_DB))


def difference_median(ours: Sequence[float], peers: Sequence[float]) -> float:
    """Return the median over trials of |PSNR - the peer's PSNR| in dB; failures of both are equal."""
    pairs = zip(ours, peers, strict=True)
    return float(np.median([0.0 if a == b else abs(a - b) for a, b in pairs]))


def sgemm_flops(repeats: int = 3) -> float:
    """Return the most floating-point operations per CPU second of a single-precision matrix product."""
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, SGEMM_SIDE, SGEMM_SIDE, generator=generator)
    torch.mm(left, right)
    best = 0.0
    for _ in range(repeats):
        began = time.process_time()
        torch.mm(left, right)
        best = max(best, 2 * SGEMM_SIDE**3 / (time.process_time() - began))
    return best


def flops(engine: str, *, mflop: float, evaluations: int) -> float:
    """Return the floating-point operations that evaluations in a formulation take.

    Convolutions and linear layers only; the rest of the model and the optimizer count as time, not as work.

    Args:
        engine: The formulation.
        mflop: MFLOP of a forward pass.
        evaluations: How many.
    """
    return EVALUATION_FORWARDS[engine] * mflop * 1e6 * evaluations
