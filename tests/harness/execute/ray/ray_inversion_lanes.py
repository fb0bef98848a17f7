"""A lane whose evaluators train for ten steps, and one that dies once, in the middle of a GAN's training."""

from __future__ import annotations

import os
import signal

from ray_real_lanes import LaneWithoutLpips

from harness.execute.work import StageItem
from harness.metrics import evaluator_costs

FAULT = "dies-once"
STEPS = 10


class HastyLane(LaneWithoutLpips):
    """How well its evaluators judge does not matter."""

    def __init__(self, settings, name, *, gpu):
        evaluator_costs.LEAST_STEPS = evaluator_costs.MOST_STEPS = STEPS
        super().__init__(settings, name, gpu=gpu)


class MortalLane(HastyLane):
    """Dies as if by SIGKILL as a stage of an attacked model begins, if the store holds the fault."""

    def run(self, item, solved=lambda: None):
        if isinstance(item, StageItem) and item.request.round == 1:
            try:
                (self._folder / FAULT).unlink()
            except FileNotFoundError:
                return super().run(item, solved)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(item, solved)
