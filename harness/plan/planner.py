"""What would run, what is done, what means nothing and why; neither torch nor data is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, overload

from fl.errors import UsageError
from fl.specs import TrialSpec
from harness.config.matrix import Matrix
from harness.config.problems import Problems
from harness.config.sections import Cell
from harness.plan.applicability import Applicability
from harness.plan.columns import ColumnType, columns_of
from harness.plan.estimate import CostKey, Costs, Estimate, stage_seconds
from harness.plan.filters import Filter
from harness.plan.identity import TrialIds
from harness.plan.names import CellNames
from harness.plan.stages import SharedStages, SharedWork, StageCount

Status = Literal["todo", "complete", "failed", "not_applicable"]
TO_RUN: frozenset[Status] = frozenset({"todo", "failed"})


class PlannedTrial(NamedTuple):
    """A trial and what becomes of it.

    Attributes:
        trial_id: Its id.
        spec: Its spec.
        status: `todo`; `complete` (stored); `failed` (stored, to be tried again); `not_applicable`.
        reason: Why it is not applicable, or None.
        name: Its name for people.
    """

    trial_id: str
    spec: TrialSpec
    status: Status
    reason: str | None
    name: str


class _Entry(NamedTuple):
    cell: Cell
    seed: int
    trial_id: str
    status: Status
    reason: str | None


@dataclass(frozen=True)
class Plan:
    """The trials of a matrix that a command is about.

    Attributes:
        matrix: The matrix.
        held_back: Trials to run that `--limit` left out.
    """

    matrix: Matrix
    held_back: int
    _entries: Sequence[_Entry] = field(repr=False)
    _costs: Costs = field(repr=False)

    @property
    def trials(self) -> Sequence[PlannedTrial]:
        """Every trial; the specs are made as they are read."""
        return _Trials(self._entries, self.matrix, self._names)

    @property
    def todo(self) -> Sequence[PlannedTrial]:
        """The trials to run: new ones, and failed ones to be tried again."""
        return _Trials([e for e in self._entries if e.status in TO_RUN], self.matrix, self._names)

    @property
    def not_applicable(self) -> Sequence[PlannedTrial]:
        """The trials that mean nothing."""
        chosen = [entry for entry in self._entries if entry.status == "not_applicable"]
        return _Trials(chosen, self.matrix, self._names)

    def counts(self) -> dict[Status, int]:
        """Return the number of trials by status."""
        found = Counter(entry.status for entry in self._entries)
        statuses: tuple[Status, ...] = ("todo", "complete", "failed", "not_applicable")
        return {status: found[status] for status in statuses}

    def reasons(self) -> dict[str, int]:
        """Return why trials are not applicable and how many each reason concerns, most frequent first."""
        return dict(Counter(entry.reason for entry in self._entries if entry.reason).most_common())

    @cached_property
    def stages(self) -> list[StageCount]:
        """How far the trials to run share federations, priors and the like."""
        return self._shared.counts()

    @cached_property
    def axis_columns(self) -> dict[str, ColumnType]:
        """The columns that the matrix's specs fill (`columns.flatten`), typed by declaration."""
        return columns_of(self.matrix)

    @cached_property
    def estimate(self) -> Estimate:
        """About how long the trials to run and what they share take, and how much they store."""
        seconds = stored = 0.0
        measured = assumed = 0
        for entry in self._entries:
            if entry.status in TO_RUN:
                cost = self._costs.trial(entry.cell)
                seconds, stored = seconds + cost.seconds, stored + cost.bytes
                measured, assumed = measured + cost.measured, assumed + (not cost.measured)
        stages = [(request, stage_seconds(request)) for request in self._shared.requests.values()]
        known = [(request, cost) for request, cost in stages if cost is not None]
        return Estimate(
            trial_seconds=seconds,
            federation_seconds=sum(map(self._costs.federation_seconds, self._shared.federations.values())),
            stage_seconds=sum(cost for _, cost in known),
            trained_stage_seconds=sum(cost for request, cost in known if request.round is not None),
            disk_bytes=stored,
            measured=measured,
            assumed=assumed,
            unknown_stages=Counter(request.kind for request, cost in stages if cost is None),
        )

    @cached_property
    def _shared(self) -> SharedWork:
        return SharedStages(self.matrix).of((e.cell, e.seed) for e in self._entries if e.status in TO_RUN)

    @cached_property
    def _names(self) -> CellNames:
        return CellNames(self.matrix)


class _Trials(Sequence[PlannedTrial]):
    """A view of entries as planned trials."""

    def __init__(self, entries: Sequence[_Entry], matrix: Matrix, names: CellNames) -> None:
        self._entries = entries
        self._matrix = matrix
        self._names = names

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> PlannedTrial: ...
    @overload
    def __getitem__(self, index: slice) -> _Trials: ...
    def __getitem__(self, index: int | slice) -> PlannedTrial | _Trials:
        if isinstance(index, slice):
            return _Trials(self._entries[index], self._matrix, self._names)
        cell, seed, trial_id, status, reason = self._entries[index]
        spec = self._matrix.pools.spec(cell, seed)
        return PlannedTrial(trial_id, spec, status, reason, self._names.name(cell, seed))


def make_plan(
    matrix: Matrix,
    stored: Mapping[str, str],
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    seeds: Sequence[int] = (),
    limit: int | None = None,
    past_wall_s: Mapping[CostKey, float] | None = None,
) -> Plan:
    """Decide about every trial of a matrix.

    Args:
        matrix: The matrix.
        stored: Status of the rows that are there already, by trial id.
        only: Expressions that trials must match (`filters.Filter`).
        skip: Expressions that they must not match.
        seeds: Seeds to keep; none for all.
        limit: Largest number of trials to run; the others are left out of the plan.
        past_wall_s: Median `wall_s` of past trials, for estimates.

    Raises:
        ConfigError: If data is missing, or a trial asks for more targets than there can be.
        UsageError: If an expression, seed or limit is wrong.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"expected --limit of at least 1, got {limit}")
    problems = Problems()
    applicability = Applicability(matrix, problems)
    chosen = Filter(matrix, only, skip, seeds)
    reasons: dict[Cell, str | None] = {}
    entries = []
    held_back, room = 0, limit
    for cell, seed, trial_id in _identified(matrix, chosen):
        if cell not in reasons:
            reasons[cell] = applicability.reason(cell)
        reason = reasons[cell]
        status = _status(stored.get(trial_id), reason)
        if status in TO_RUN and room is not None:
            if room == 0:
                held_back += 1
                continue
            room -= 1
        entries.append(_Entry(cell, seed, trial_id, status, reason))
    problems.raise_if_any()
    chosen.check_all_matched()
    return Plan(matrix, held_back, entries, Costs(matrix, applicability, past_wall_s or {}))


def _identified(matrix: Matrix, chosen: Filter) -> Iterator[tuple[Cell, int, str]]:
    ids = TrialIds(matrix)
    for cell, seed in matrix.trials():
        if chosen.keeps(cell, seed):
            yield cell, seed, ids.of(cell, seed)


def _status(stored: str | None, reason: str | None) -> Status:
    if stored == "complete":
        return "complete"
    if reason is not None:
        return "not_applicable"
    return "failed" if stored == "failed" else "todo"
