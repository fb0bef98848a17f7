"""L-BFGS over lanes, step for step as `attacks.optimizers.Lbfgs` and so `torch.optim.LBFGS`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.catalog import LBFGS_EVALUATIONS
from attacks.engine.curvature import Curvature
from attacks.engine.rows import Event, OptimizerRows
from attacks.optimizers import Lbfgs

HISTORY = 100
TOLERANCE_GRADIENT = 1e-7
TOLERANCE_CHANGE = 1e-9
TOLERANCE_CURVATURE = 1e-10
"""torch's."""


@dataclass
class _Run:
    """Where a lane stands.

    Attributes:
        settings: The plain loop's optimizer.
        allowance: Evaluations left before this outer step.
        steps: Outer steps done.
        evaluations: Evaluations of this outer step.
        moves: Inner iterations of this outer step.
        best: Lowest objective at the start of an outer step.
        since: Outer steps since it fell by a thousandth.
        ending: Whether this outer step is the last.
        finishing: Whether only the last evaluation is missing.
        previous: The objective where it last moved from.
        length: Largest entry of the latest step.
        fresh: Whether it has not moved yet.
    """

    settings: Lbfgs
    allowance: float
    steps: int = 0
    evaluations: int = 0
    moves: int = 0
    best: float = math.inf
    since: int = 0
    ending: bool = False
    finishing: bool = False
    previous: float = math.inf
    length: float = math.inf
    fresh: bool = True

    def begin(self, total: float) -> None:
        """Take in the objective at the start of an outer step."""
        self.since = 0 if total < self.best * 0.999 else self.since + 1
        self.best = min(self.best, total)
        self.ending = total < self.settings.solved or self.since >= self.settings.patience

    def moves_on(self, total: float, slope: float) -> bool:
        """Whether the outer step goes on from here; `slope` is the gradient's largest entry."""
        if slope <= TOLERANCE_GRADIENT:
            return False
        if self.evaluations == 1:
            return True
        spent = self.evaluations >= self.allowance
        stuck = self.length <= TOLERANCE_CHANGE or abs(total - self.previous) < TOLERANCE_CHANGE
        return not (spent or stuck)

    def end_step(self) -> None:
        """End the outer step, and the run if it is time."""
        self.allowance -= self.evaluations
        self.steps += 1
        self.evaluations = self.moves = 0
        self.finishing = self.ending or self.steps == self.settings.iterations or self.allowance < 2


class LbfgsRows(OptimizerRows):
    """Step 1 without line search, 20 inner iterations in an outer one, 100 pairs of history.

    Args:
        lanes: B.
        variables: D.
        like: Decides dtype and device.
    """

    def __init__(self, lanes: int, variables: int, like: Tensor) -> None:
        self.values = like.new_zeros(lanes, variables)
        self._runs: dict[int, _Run] = {}
        self._curvature = Curvature(lanes, variables, HISTORY, like)
        self._directions = torch.zeros_like(self.values)
        self._gradients = torch.zeros_like(self.values)
        self._rates = like.new_zeros(lanes, 1)

    def load(
        self,
        lane: int,
        start: Tensor,
        settings: object,
        allowance: float,
        noise: torch.Generator | None = None,
    ) -> None:
        """Begin a run; no noise is added."""
        assert isinstance(settings, Lbfgs)
        self.clear(lane)
        self.values[lane, : len(start)] = start
        self._runs[lane] = _Run(settings, allowance, finishing=allowance < 2)
        self._curvature.clear(lane)

    def clear(self, lane: int) -> None:
        """Leave a row idle."""
        self._runs.pop(lane, None)
        for rows in (self.values, self._directions, self._gradients, self._rates):
            rows[lane].zero_()

    def advance(self, totals: Sequence[float], gradients: Tensor) -> dict[int, Event]:
        """Take in an evaluation and move."""
        events: dict[int, Event] = {}
        moving: list[int] = []
        slopes = gradients.abs().amax(1).tolist()
        for lane, run in list(self._runs.items()):
            events[lane] = self._judge(run, totals[lane], slopes[lane])
            if events[lane] in (Event.DEAD, Event.LAST):
                self.clear(lane)
            elif run.moves_on(totals[lane], slopes[lane]):
                moving.append(lane)
            else:
                run.end_step()
        if moving:
            self._move(moving, totals, gradients)
        return events

    def _judge(self, run: _Run, total: float, slope: float) -> Event:
        run.evaluations += 1
        if not (math.isfinite(total) and math.isfinite(slope)):
            return Event.DEAD
        if run.finishing:
            return Event.LAST
        if run.evaluations > 1:
            return Event.INNER
        run.begin(total)
        return Event.ITERATE

    def _move(self, moving: Sequence[int], totals: Sequence[float], gradients: Tensor) -> None:
        directions, rates = self._next(moving, gradients)
        slopes = (gradients * directions).sum(1).tolist()
        lengths = (directions * rates).abs().amax(1).tolist()
        descending = []
        for lane in moving:
            run = self._runs[lane]
            run.fresh, run.previous, run.length = False, totals[lane], lengths[lane]
            if slopes[lane] > -TOLERANCE_CHANGE:
                run.end_step()
                continue
            descending.append(lane)
            run.moves += 1
            if run.moves == LBFGS_EVALUATIONS:
                run.end_step()
        moved = self._mask(moving)
        self._directions = torch.where(moved, directions, self._directions)
        self._gradients = torch.where(moved, gradients, self._gradients)
        self._rates = torch.where(moved, rates, self._rates)
        stepped = torch.where(self._mask(descending), rates * directions, 0)
        self.values = self.values + stepped

    def _next(self, moving: Sequence[int], gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Return directions, `B x D`, and step sizes, `B x 1`."""
        fresh = [lane for lane in moving if self._runs[lane].fresh]
        others = [lane for lane in moving if not self._runs[lane].fresh]
        directions, rates = -gradients, torch.ones_like(self._rates)
        if others:
            steps = self._directions * self._rates
            changes = gradients - self._gradients
            later = self._curvature.directions(others, gradients, steps, changes, tiny=TOLERANCE_CURVATURE)
            directions = torch.where(self._mask(others), later, directions)
        if fresh:
            first = (1 / gradients.abs().sum(1, keepdim=True)).clamp(max=1)
            rates = torch.where(self._mask(fresh), first, rates)
        return directions, rates

    def _mask(self, lanes: Sequence[int]) -> Tensor:
        mask = torch.zeros(len(self.values), 1, dtype=torch.bool, device=self.values.device)
        mask[list(lanes)] = True
        return mask
