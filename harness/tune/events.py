"""What a study tells whoever watches it, and how it ended; plain data, no Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from harness.execute.events import RunListener

if TYPE_CHECKING:
    from harness.execute.events import RunResult
    from harness.tune.space import Scalar

State = Literal["running", "complete", "pruned", "failed"]


class OptunaTrialDone(NamedTuple):
    """An Optuna trial that Optuna was told of.

    Attributes:
        number: Optuna's number.
        label: The branch of the space.
        noise_budget: Of the defense; None where no trial applied.
        chosen: Its parameters.
        state: What it came to.
        values: By objective; empty unless complete.
        feasible: Whether it keeps to all constraints.
        reason: Why it failed or was ended early, or None.
    """

    number: int
    label: str
    noise_budget: float | None
    chosen: Mapping[str, Scalar]
    state: State
    values: Mapping[str, float]
    feasible: bool
    reason: str | None


class Standing(NamedTuple):
    """Where a study stands.

    Attributes:
        told: Optuna trials that are told.
        left: Optuna trials that are not.
        front: The feasible ones that no other dominates.
    """

    told: int
    left: int
    front: tuple[OptunaTrialDone, ...]


class TuneListener(RunListener, Protocol):
    """Whoever watches a study."""

    def resumed(self, standing: Standing) -> None:
        """Hear where a study stands that goes on; before `started`."""

    def optuna_trial(self, done: OptunaTrialDone, standing: Standing) -> None:
        """Hear of an Optuna trial that was told."""


@dataclass(frozen=True)
class TuneResult:
    """How a command ended.

    Attributes:
        run: How its trials went.
        told: Optuna trials of the study that are told, by state.
        left: Optuna trials that are not.
        finished: Whether every Optuna trial is told and the front is judged.
    """

    run: RunResult
    told: Mapping[State, int]
    left: int
    finished: bool

    @property
    def exit_code(self) -> int:
        """0 complete, 1 a trial failed, 3 stopped before the end, 130 stopped at once."""
        return self.run.exit_code or (0 if self.finished else 3)
