"""Which reconstruction stands for which private image: one assignment per target, used by every metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scipy.optimize import linear_sum_assignment

from harness.metrics.pairs import euclidean

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

NOT_FINITE_COST = 2.0
"""Above any squared error of images in [0, 1]: such a reconstruction is matched only if no other is left."""


def match(truth: Tensor, guess: Tensor, finite: Tensor) -> tuple[int | None, ...]:
    """Return, for each private image, the position of its reconstruction.

    The assignment is one-to-one and minimises the sum of squared errors (Hungarian algorithm). With fewer
    reconstructions than images some images get None; with more, some reconstructions go unused.

    Args:
        truth: `n x C x H x W` in [0, 1].
        guess: `m x C x H x W` in [0, 1].
        finite: `m` bool; false where a reconstruction cannot be compared.
    """
    if len(truth) == len(guess) == 1:
        return (0,)
    matched: list[int | None] = [None] * len(truth)
    if len(truth) and len(guess):
        rows, columns = linear_sum_assignment(_cost(truth, guess, finite))
        for row, column in zip(rows, columns, strict=True):
            matched[int(row)] = int(column)
    return tuple(matched)


def _cost(truth: Tensor, guess: Tensor, finite: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    errors = euclidean(truth.double(), guess.double()).square() / truth[0].numel()
    cost: np.ndarray[tuple[int, int], np.dtype[np.float64]] = errors.where(finite, NOT_FINITE_COST).numpy()
    return cost
