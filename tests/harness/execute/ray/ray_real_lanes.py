"""The lane of `bench run` without LPIPS, which has tests of its own and would be downloaded here."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.execute import score
from harness.execute.lane import Lane
from harness.metrics.pairs import Unavailable


class LaneWithoutLpips(Lane):
    """Computes what the inline tests compute, and leaves a mark where it serves a federation."""

    def __init__(self, settings, name, *, gpu):
        score._perceptual = lambda: Unavailable("LPIPS is left out of these tests")
        super().__init__(settings, name, gpu=gpu)
        self._folder = Path(settings.artifact_uri)

    def begin_federation(self, item):
        (self._folder / "served").touch()
        return super().begin_federation(item)


class HungryLane(LaneWithoutLpips):
    """Has no memory for more than 16 lanes."""

    def __init__(self, settings, name, *, gpu):
        sys.path.append(str(Path(__file__).parents[1]))
        import hungry

        hungry.register()
        super().__init__(settings, name, gpu=gpu)
