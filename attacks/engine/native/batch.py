"""The native kernel in the solver's hands: a batch of one lane."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attacks.base import TaskFailure
from attacks.engine.batch import Answer, answered, given_up
from attacks.engine.native.lane import Lane
from attacks.engine.rows import Event
from attacks.engine.table import NATIVE
from attacks.optimizers import Lbfgs

if TYPE_CHECKING:
    from torch import nn

    from attacks.base import AttackEnv
    from attacks.engine.objective import ObjectiveSpec
    from attacks.engine.search import Search


@dataclass
class _Run:
    """Where a restart stands, as in `attacks.optimizers.Lbfgs.run`.

    Attributes:
        settings: The plain loop's optimizer.
        allowance: Evaluations left before the last one.
        steps: Outer steps done.
        best: Lowest objective at the start of an outer step.
        since: Outer steps since it fell by a thousandth.
        ending: Whether the latest outer step was the last.
    """

    settings: Lbfgs
    allowance: float
    steps: int = 0
    best: float = math.inf
    since: int = 0
    ending: bool = False

    @property
    def over(self) -> bool:
        """Whether only the last evaluation is missing."""
        return self.ending or self.steps == self.settings.iterations or self.allowance < 2

    def take(self, total: float, evaluations: int) -> None:
        """Take in an outer step that began at an objective."""
        self.allowance -= evaluations
        self.steps += 1
        self.since = 0 if total < self.best * 0.999 else self.since + 1
        self.best = min(self.best, total)
        self.ending = total < self.settings.solved or self.since >= self.settings.patience


class NativeBatch:
    """As `attacks.engine.batch.Batch`, for tasks under L-BFGS; it moves by whole outer steps.

    Args:
        spec: What tasks share.
        model: Decides the graph.
        env: Who may call a stop.

    Raises:
        UnsupportedModelError: If the kernel cannot be had, or cannot compute this.
    """

    def __init__(self, spec: ObjectiveSpec, model: nn.Module, env: AttackEnv) -> None:
        self._lane = Lane(spec, model)
        self._env = env
        self._search: Search | None = None
        self._run: _Run | None = None

    @property
    def free(self) -> int:
        """Idle lanes: one or none."""
        return int(self.idle)

    @property
    def idle(self) -> bool:
        """Whether there is no task."""
        return self._search is None

    def enter(self, search: Search) -> Answer | None:
        """Let a task in; return its answer at once where it may not evaluate anything."""
        self._lane.load(search.target)
        return None if self._restart(search) else answered(search, NATIVE)

    def run(self) -> Iterator[Answer]:
        """Take an outer step; yield the task's answer if it is finished by it."""
        search, run = self._search, self._run
        assert search is not None
        assert run is not None
        if not run.over and self._env.stopping(search.problem.task.task_id):
            self._search = None
            yield TaskFailure(search.problem.task.task_id, "stopped")
        elif (self._end(search) if run.over else self._step(search, run)) and not self._restart(search):
            self._search = None
            yield answered(search, NATIVE)

    def abandon(self, error: Exception) -> Iterator[TaskFailure]:
        """Give up the task."""
        if self._search is not None:
            search, self._search = self._search, None
            yield given_up(search, error)

    def _restart(self, search: Search) -> bool:
        start = search.begin()
        if start is None:
            return False
        assert isinstance(search.optimizer, Lbfgs)
        self._lane.start(start.values)
        self._search, self._run = search, _Run(search.optimizer, start.allowance)
        return True

    def _step(self, search: Search, run: _Run) -> bool:
        """Take an outer step; return whether it was the restart's end."""
        values = self._lane.values
        step = self._lane.step(run.allowance)
        run.take(step.total, step.evaluations)
        events = [Event.ITERATE] + [Event.INNER] * (step.evaluations - 1)
        if step.dead:
            events[-1] = Event.DEAD
        terms = {"matching": step.total, "total": step.total}
        return [search.take(event, terms, values) for event in events][-1]

    def _end(self, search: Search) -> bool:
        values = self._lane.values
        total = self._lane.evaluate()
        alive = math.isfinite(total) and bool(self._lane.gradient.isfinite().all())
        event = Event.LAST if alive else Event.DEAD
        return search.take(event, {"matching": total, "total": total}, values)
