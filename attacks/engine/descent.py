"""Adam and gradient descent over lanes, step for step as `attacks.optimizers.Descent`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.engine.rows import Event, OptimizerRows
from attacks.optimizers import Descent, jittered

EPSILON = 1e-8
"""torch's, of Adam."""


@dataclass
class _Run:
    """Where a lane stands: the plain loop's optimizer, how many steps it takes, noise, and steps done."""

    settings: Descent
    steps: int
    noise: torch.Generator | None
    done: int = 0

    @property
    def rate(self) -> float:
        """The step size now."""
        return self.settings.rate(self.done, self.steps)


class DescentRows(OptimizerRows):
    """Steps along the gradient or its sign, in a box, with or without Adam's moments.

    Args:
        lanes: B.
        variables: D.
        shape: `n x C x H x W` of the first variables, the images; signs and boxes are theirs alone.
        like: Decides dtype and device.
        moments: Whether it is Adam.
    """

    def __init__(
        self, lanes: int, variables: int, shape: tuple[int, int, int, int], like: Tensor, *, moments: bool
    ) -> None:
        self.values = like.new_zeros(lanes, variables)
        self._runs: dict[int, _Run] = {}
        self._shape = shape
        self._moments = moments
        self._mean = torch.zeros_like(self.values)
        self._square = torch.zeros_like(self.values)
        self._decays = like.new_zeros(lanes, 3, 1)
        self._signed = like.new_zeros(lanes, 1, dtype=torch.bool)
        self._low = like.new_full((lanes, 1, shape[1], 1, 1), -math.inf)
        self._high = like.new_full((lanes, 1, shape[1], 1, 1), math.inf)

    def load(
        self,
        lane: int,
        start: Tensor,
        settings: object,
        allowance: float,
        noise: torch.Generator | None = None,
    ) -> None:
        """Begin a run."""
        assert isinstance(settings, Descent)
        self.clear(lane)
        self.values[lane, : len(start)] = start
        self._runs[lane] = _Run(settings, int(min(settings.iterations, allowance)), noise)
        first, second = settings.betas
        self._decays[lane, :, 0] = self.values.new_tensor((1 - first, second, 1 - second))
        self._signed[lane] = settings.signed
        if settings.box is not None:
            self._low[lane], self._high[lane] = settings.box

    def clear(self, lane: int) -> None:
        """Leave a row idle."""
        self._runs.pop(lane, None)
        for rows in (self.values, self._mean, self._square, self._signed):
            rows[lane].zero_()
        self._low[lane], self._high[lane] = -math.inf, math.inf

    def advance(self, totals: Sequence[float], gradients: Tensor) -> dict[int, Event]:
        """Take in an evaluation and take a step."""
        events: dict[int, Event] = {}
        for lane, run in list(self._runs.items()):
            if not math.isfinite(totals[lane]):
                events[lane] = Event.DEAD
            else:
                events[lane] = Event.LAST if run.done == run.steps else Event.ITERATE
            if events[lane] is not Event.ITERATE:
                self.clear(lane)
        if self._runs:
            self._step(gradients)
        for run in self._runs.values():
            run.done += 1
        return events

    def _step(self, gradients: Tensor) -> None:
        pixels = math.prod(self._shape)
        images, rest = gradients[:, :pixels], gradients[:, pixels:]
        gradients = torch.cat([torch.where(self._signed, images.sign(), images), rest], 1)
        moves = self._adam(gradients) if self._moments else gradients
        moved = self.values - self._rows([run.rate for run in self._runs.values()], idle=0) * moves
        self._jitter(moved[:, :pixels])
        boxed = moved[:, :pixels].reshape(-1, *self._shape).clamp(self._low, self._high).flatten(1)
        active = self._rows([1] * len(self._runs), idle=0) > 0
        self.values = torch.where(active, torch.cat([boxed, moved[:, pixels:]], 1), self.values)

    def _adam(self, gradients: Tensor) -> Tensor:
        """Source: Kingma and Ba 2015, arXiv 1412.6980, algorithm 1."""
        fresh_mean, kept, fresh = self._decays.unbind(1)
        self._mean = self._mean.lerp(gradients, fresh_mean)
        self._square = self._square * kept + fresh * gradients * gradients
        runs = [(run.settings.betas, run.done + 1) for run in self._runs.values()]
        first = self._rows([1 - beta**step for (beta, _), step in runs], idle=1)
        second = self._rows([math.sqrt(1 - beta**step) for (_, beta), step in runs], idle=1)
        return self._mean / first / (self._square.sqrt() / second + EPSILON)

    def _jitter(self, images: Tensor) -> None:
        """Add noise to the images of lanes that ask for it, `B x pixels`, in place."""
        for lane, run in self._runs.items():
            if run.settings.jitter:
                noise = jittered(images[lane], run.noise)
                images[lane].add_(noise, alpha=run.rate * run.settings.jitter)

    def _rows(self, values: Sequence[float], *, idle: float) -> Tensor:
        """Put a value of each run in its lane's row, `B x 1`."""
        rows = [idle] * len(self.values)
        for lane, value in zip(self._runs, values, strict=True):
            rows[lane] = value
        return self.values.new_tensor(rows).unsqueeze(1)
