"""What all optimizers over lanes have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Event(Enum):
    """What an evaluation of the objective was to a lane."""

    INNER = "a point on the way"
    ITERATE = "an outer iterate"
    LAST = "the point where the run ended"
    DEAD = "not finite, and the run is over"


class OptimizerRows(ABC):
    """An optimizer with a row of variables and state for each lane.

    It asks for an evaluation of all rows, is told the outcome, and moves. A run ends with an evaluation of
    the point where it ended.

    Attributes:
        values: The variables, `B x D`.
    """

    values: Tensor

    @abstractmethod
    def load(
        self,
        lane: int,
        start: Tensor,
        settings: object,
        allowance: float,
        noise: Generator | None = None,
    ) -> None:
        """Begin a run.

        Args:
            lane: Its row.
            start: Where from, its first variables; the others are zeros.
            settings: What the plain loop's optimizer is told.
            allowance: Evaluations it may spend before the last one.
            noise: Where noise is drawn from, for an optimizer that adds any.
        """

    @abstractmethod
    def clear(self, lane: int) -> None:
        """Leave a row idle; its values become zeros."""

    @abstractmethod
    def advance(self, totals: Sequence[float], gradients: Tensor) -> dict[int, Event]:
        """Take in the objective, `B`, and its gradient, `B x D`, at `values`, and move; tell what it was."""
