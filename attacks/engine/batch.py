"""A batch: lanes that tasks enter as others leave."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from attacks.base import AttackEnv, Reconstruction, TaskFailure
from attacks.engine.descent import DescentRows
from attacks.engine.formulations import Formulation
from attacks.engine.lbfgs import LbfgsRows
from attacks.engine.objective import LaneObjective, ObjectiveSpec
from attacks.engine.rows import Event, OptimizerRows
from attacks.engine.search import Search
from attacks.engine.table import Choice
from attacks.optimizers import Adam, Descent, Lbfgs
from fl.errors import BenchError

if TYPE_CHECKING:
    from torch import Tensor

Answer = Reconstruction | TaskFailure


class Batch:
    """A fixed number of lanes over one formulation; an idle lane computes on zeros.

    Args:
        spec: What lanes share.
        formulation: Computes their gradients.
        optimizer: The family: `Lbfgs`, or a kind of `Descent`.
        like: Decides dtype and device.
        env: Who may call a stop.
        choice: What the table says, for the answers.
    """

    def __init__(
        self,
        spec: ObjectiveSpec,
        formulation: Formulation,
        *,
        optimizer: type[Lbfgs | Descent],
        choice: Choice,
        like: Tensor,
        env: AttackEnv,
    ) -> None:
        lanes = choice.lanes
        self._choice = choice
        self._objective = LaneObjective(spec, formulation, lanes, like)
        self._rows = _optimizer_rows(optimizer, spec, lanes, like)
        self._searches: dict[int, Search] = {}
        self._lanes = lanes
        self._env = env

    @property
    def free(self) -> int:
        """Idle lanes."""
        return self._lanes - len(self._searches)

    @property
    def idle(self) -> bool:
        """Whether all lanes are."""
        return not self._searches

    def enter(self, search: Search) -> Answer | None:
        """Let a task into an idle lane; return its answer at once where it may not evaluate anything."""
        lane = next(lane for lane in range(self._lanes) if lane not in self._searches)
        self._objective.load(lane, search.target)
        return None if self._restart(lane, search) else self._answer(search)

    def run(self) -> Iterator[Answer]:
        """Evaluate once and move; yield what is finished by it."""
        values = self._rows.values.clone()
        evaluated = self._objective.evaluate(values)
        terms = {name: rows.tolist() for name, rows in evaluated.terms.items()}
        events = self._rows.advance(terms["total"], evaluated.gradients)
        for lane, event in events.items():
            search = self._searches[lane]
            task_id = search.problem.task.task_id
            if event is Event.ITERATE and self._env.stopping(task_id):
                self._leave(lane)
                yield TaskFailure(task_id, "stopped")
                continue
            over = search.take(event, {name: rows[lane] for name, rows in terms.items()}, values[lane])
            if over and not self._restart(lane, search):
                self._leave(lane)
                yield self._answer(search)

    def abandon(self, error: Exception) -> Iterator[TaskFailure]:
        """Give up every task in the batch."""
        trace = "".join(traceback.format_exception(error))
        for lane, search in list(self._searches.items()):
            self._leave(lane)
            yield TaskFailure(search.problem.task.task_id, f"{type(error).__name__}: {error}", trace)

    def _restart(self, lane: int, search: Search) -> bool:
        start = search.begin()
        if start is None:
            return False
        self._searches[lane] = search
        self._rows.load(lane, start.values, search.optimizer, start.allowance)
        return True

    def _answer(self, search: Search) -> Answer:
        try:
            answer = search.answer()
        except BenchError as error:
            return TaskFailure(search.problem.task.task_id, str(error))
        return replace(answer, formulation=self._choice.formulation, lane_width=self._choice.lanes)

    def _leave(self, lane: int) -> None:
        self._searches.pop(lane, None)
        self._rows.clear(lane)


def _optimizer_rows(
    optimizer: type[Lbfgs | Descent], spec: ObjectiveSpec, lanes: int, like: Tensor
) -> OptimizerRows:
    if issubclass(optimizer, Lbfgs):
        return LbfgsRows(lanes, spec.variables, like)
    shape = (spec.images, *spec.shape)
    return DescentRows(lanes, spec.variables, shape, like, moments=issubclass(optimizer, Adam))
