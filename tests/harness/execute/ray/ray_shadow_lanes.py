"""A lane that dies once, in the middle of a round."""

from __future__ import annotations

import os
import signal

from ray_real_lanes import LaneWithoutLpips

FAULT = "dies-once"


class MortalLane(LaneWithoutLpips):
    """Dies as if by SIGKILL after it trained a chunk of round 1, if the store holds the fault."""

    def train_chunk(self, item, round_, chunk, *rest):
        result = super().train_chunk(item, round_, chunk, *rest)
        if round_ == 1:
            try:
                (self._folder / FAULT).unlink()
            except FileNotFoundError:
                return result
            os.kill(os.getpid(), signal.SIGKILL)
        return result
