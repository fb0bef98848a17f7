"""Adam, in the two ways that GGL's released code runs it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from attacks.latent.base import LatentSearch

if TYPE_CHECKING:
    from torch import Tensor

Schedule = Literal["signed", "cosine"]

MILESTONES = (3 / 8, 5 / 8, 7 / 8)
"""Shares of the steps after which a signed search's steps shrink tenfold."""

RAMP_UP, RAMP_DOWN = 0.05, 0.25
"""Shares of the steps in which those of a cosine search grow from 0, and fall to 0 along half a wave."""


def rate(schedule: Schedule, step: int, steps: int) -> float:
    """Return what the step size is multiplied by at a step, from 0, of so many."""
    if schedule == "signed":
        return 0.1 ** sum(step >= int(share * steps) for share in MILESTONES)
    passed = step / steps
    fall = min(1.0, (1 - passed) / RAMP_DOWN)
    return (1 - math.cos(math.pi * fall)) / 2 * min(1.0, passed / RAMP_UP)


class AdamSearch(LatentSearch):
    """Adam from one point.

    Args:
        first: Where from, `D`.
        steps: Evaluations.
        lr: Step size.
        schedule: `signed`: on the sign of the slope, with milestones; `cosine`: on the slope, with ramps.
    """

    needs_slopes: ClassVar[bool] = True

    def __init__(self, first: Tensor, steps: int, *, lr: float, schedule: Schedule) -> None:
        self._point = first.clone()
        self._steps, self._lr, self._schedule = steps, lr, schedule
        self._optimizer = torch.optim.Adam([self._point], lr=lr)
        self._step = 0

    def ask(self) -> Tensor:
        """Return where it is, `1 x D`."""
        return self._point.clone().unsqueeze(0)

    def tell(self, values: Tensor, slopes: Tensor | None = None) -> None:
        """Take a step."""
        assert slopes is not None
        (slope,) = slopes
        self._point.grad = slope.sign() if self._schedule == "signed" else slope
        factor = rate(self._schedule, self._step, self._steps)
        self._optimizer.param_groups[0]["lr"] = self._lr * factor
        self._optimizer.step()
        self._step += 1
