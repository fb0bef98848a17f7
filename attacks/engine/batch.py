"""A batch: lanes that tasks enter as others leave."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from attacks.base import AttackEnv, Reconstruction, TaskFailure
from attacks.engine.descent import DescentRows
from attacks.engine.formulations import Formulation
from attacks.engine.lbfgs import LbfgsRows
from attacks.engine.objective import LaneObjective, ObjectiveSpec
from attacks.engine.rows import Event, OptimizerRows
from attacks.engine.search import Search
from attacks.engine.table import Choice
from attacks.failures import failure
from attacks.optimizers import Adam, Descent, Lbfgs

if TYPE_CHECKING:
    from torch import Tensor

Answer = Reconstruction | TaskFailure


class _Seat(NamedTuple):
    """What is in a lane: a task and which of its restarts."""

    search: Search
    restart: int


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
        self._pixels = spec.pixels
        self._seats: dict[int, _Seat] = {}
        self._lanes = lanes
        self._env = env

    @property
    def free(self) -> int:
        """Idle lanes."""
        return self._lanes - len(self._seats)

    @property
    def idle(self) -> bool:
        """Whether all lanes are."""
        return not self._seats

    def enter(self, search: Search) -> Answer | None:
        """Let a task into idle lanes; return its answer at once where it may not evaluate anything."""
        idle = [lane for lane in range(self._lanes) if lane not in self._seats]
        for lane in idle[: search.width]:
            self._objective.load(lane, search.target)
            if not self._restart(lane, search):
                return answered(search, self._choice)
        return None

    def run(self) -> Iterator[Answer]:
        """Evaluate once and move; yield what is finished by it."""
        values = self._rows.values.clone()
        for search in self._searches:
            if search.grouped and search.meets():
                self._gather(search, values)
        evaluated = self._objective.evaluate(values)
        terms = {name: rows.tolist() for name, rows in evaluated.terms.items()}
        events = self._rows.advance(terms["total"], evaluated.gradients)
        for lane, event in events.items():
            seat = self._seats.get(lane)
            if seat is None:  # its task was stopped in another lane
                continue
            search = seat.search
            task_id = search.problem.task.task_id
            if event is Event.ITERATE and self._env.stopping(task_id):
                self._leave(*self._lanes_of(search))
                yield TaskFailure(task_id, "stopped")
                continue
            found = {name: rows[lane] for name, rows in terms.items()}
            over = search.take(event, found, values[lane], restart=seat.restart)
            if over and not self._restart(lane, search):
                self._leave(lane)
                if not self._lanes_of(search):
                    yield answered(search, self._choice)

    def abandon(self, error: Exception) -> Iterator[TaskFailure]:
        """Give up every task in the batch."""
        searches = self._searches
        self._leave(*list(self._seats))
        for search in searches:
            yield given_up(search, error)

    @property
    def _searches(self) -> list[Search]:
        """Each once."""
        return list(dict.fromkeys(seat.search for seat in self._seats.values()))

    def _lanes_of(self, search: Search) -> list[int]:
        """Return a task's lanes, its restarts in order."""
        lanes = [lane for lane, seat in self._seats.items() if seat.search is search]
        return sorted(lanes, key=lambda lane: self._seats[lane].restart)

    def _gather(self, search: Search, values: Tensor) -> None:
        """Tell a task's restarts their mean, if there is more than one left."""
        lanes = self._lanes_of(search)
        if len(lanes) > 1:
            search.met = True
            mean = torch.stack([values[lane, : self._pixels] for lane in lanes]).mean(0)
            for lane in lanes:
                self._objective.gather(lane, mean)

    def _restart(self, lane: int, search: Search) -> bool:
        start = search.begin()
        if start is None:
            return False
        self._seats[lane] = _Seat(search, start.number)
        self._rows.load(lane, start.values, search.optimizer, start.allowance, start.noise)
        return True

    def _leave(self, *lanes: int) -> None:
        for lane in lanes:
            self._seats.pop(lane, None)
            self._rows.clear(lane)


def answered(search: Search, choice: Choice) -> Answer:
    """Return the answer of a task whose restarts are over, and how it was computed."""
    try:
        answer = search.answer()
    except Exception as error:
        return failure(search.problem.task.task_id, error)
    return replace(answer, formulation=choice.formulation, lane_width=choice.lanes, tabled=True)


def given_up(search: Search, error: Exception) -> TaskFailure:
    """Return the answer of a task whose batch failed."""
    trace = "".join(traceback.format_exception(error))
    return TaskFailure(search.problem.task.task_id, f"{type(error).__name__}: {error}", trace)


def _optimizer_rows(
    optimizer: type[Lbfgs | Descent], spec: ObjectiveSpec, lanes: int, like: Tensor
) -> OptimizerRows:
    if issubclass(optimizer, Lbfgs):
        return LbfgsRows(lanes, spec.variables, like)
    shape = (spec.images, *spec.shape)
    return DescentRows(lanes, spec.variables, shape, like, moments=issubclass(optimizer, Adam))
