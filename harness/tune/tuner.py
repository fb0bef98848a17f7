"""The study while it runs: Optuna trials become trials of the harness, their rows become what Optuna is told.

Optuna trials are told in the order of their numbers: number n is asked for once n - parallel is told, and
before n - parallel + 1 is. So what a sampler knows when it proposes a trial, and what an Optuna trial is
compared with before it is ended early, depends on results alone, never on which lane was faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState
from optuna.trial import Trial as OptunaTrial

from harness.execute.work import Trial
from harness.tune.attempt import STATES, Attempt, Decision, read_decision, tell
from harness.tune.events import Standing
from harness.tune.evidence import Cost, Rows
from harness.tune.samplers import suggest
from harness.tune.space import DEFENSE, Scalar
from harness.tune.verdicts import Verdicts

if TYPE_CHECKING:
    import optuna

    from harness.config.yaml_loader import Node
    from harness.execute.work import Usage
    from harness.plan.planner import PlannedTrial
    from harness.store.experiment import TrialRows
    from harness.tune.document import Attacks, Tuning
    from harness.tune.events import TuneListener

Planned = Mapping[int, Sequence["PlannedTrial"]]
"""Trials by seed."""
COST = "leakbench:federation:"
"""User attributes of the study: seconds that federations took, by key."""
IN_JOURNAL = tuple(state for state in TrialState if state != TrialState.WAITING)


@dataclass
class Tuner:
    """Asks and tells; the run loop's feed (`harness.execute.feed`).

    Attributes:
        tuning: The tune file.
        study: Optuna's study.
        rows: What is known of trials.
        wanted: Optuna trials. Those that failed by an error of a trial under an earlier driver do not count.
        listener: Who watches.
        limit: Largest number of trials to hand out, or None.
        keep_failed: Whether those do count.
        attempts: The Optuna trials, by number.
    """

    tuning: Tuning
    study: optuna.Study
    rows: Rows
    wanted: int
    listener: TuneListener
    limit: int | None = None
    keep_failed: bool = False
    attempts: dict[int, Attempt] = field(default_factory=dict)
    verdicts: Verdicts = field(init=False)
    _asked: set[str] = field(default_factory=set)
    _held_back: bool = False

    def __post_init__(self) -> None:
        for name, value in self.study.user_attrs.items():
            if name.startswith(COST):
                self.rows.trained(name.removeprefix(COST), Cost(*value))
        none, _ = self._planned(self.tuning.none, self.tuning.tuning.static)
        self.verdicts = Verdicts(self.tuning, self.rows, none)
        for frozen in self.study.get_trials(deepcopy=False, states=IN_JOURNAL):
            attempt = self._taken_up(frozen)
            self.attempts[frozen.number] = attempt
            replaced = attempt.decision is not None and attempt.decision.errors and not self.keep_failed
            self.wanted += bool(replaced)

    @property
    def untold(self) -> list[Attempt]:
        """Optuna trials in flight, in order."""
        return [attempt for attempt in self.attempts.values() if not attempt.told]

    @property
    def left(self) -> int:
        """Optuna trials that are not told yet."""
        return max(self.wanted - len(self.attempts), 0) + len(self.untold)

    @property
    def finished(self) -> bool:
        """Whether every Optuna trial is told and the front is judged."""
        return self.left == 0 and not self._held_back and all(map(self.rows.settled, self._asked))

    @property
    def standing(self) -> Standing:
        """Where the study stands."""
        front = tuple(self.attempts[number].outcome() for number in self.front())
        return Standing(len(self.attempts) - len(self.untold), self.left, front)

    def front(self) -> list[int]:
        """Return the numbers of the feasible complete Optuna trials that no other dominates."""
        return self.verdicts.front(self.attempts.values())

    def trained(self, federation: str, usage: Usage) -> None:
        """Keep what a federation has cost; in the journal, as another driver may make its rows."""
        cost = Cost(usage.wall_s, usage.cpu_s)
        self.study.set_user_attr(f"{COST}{federation}", list(cost))
        self.rows.trained(federation, cost)

    def heard(self, rows: Sequence[TrialRows]) -> None:
        """Keep what came out of trials, and tell Optuna of what that decides."""
        self.rows.add([row.trial for row in rows])
        for attempt in self.untold:
            self._advance(attempt)
        self._tell()

    def more(self) -> list[Trial]:
        """Return the trials to run: the reference's, those of Optuna trials and, at the end, the judge's."""
        found = self._hand_out(_all(self.verdicts.none), None)
        for attempt in self.attempts.values():
            if attempt.told and attempt.decision is not None and not attempt.decision.errors:
                # again where somebody has removed their rows
                found += self._hand_out(attempt.trials(attempt.decision.seeds), attempt.number)
        while True:
            for attempt in self.untold:
                found += self._next_rung(attempt)
            if not self._tell() and not self._ask():
                break
        if not self.left:
            found += self._judging()
        return found

    def judged(self, defense: Node, *, none: bool = False) -> list[PlannedTrial]:
        """Return the trials by which the judge scores a defense."""
        judge = self.tuning.judge
        if judge is None:
            return []
        return _all(self._planned(defense, judge.static if none else judge)[0])

    def _taken_up(self, frozen: FrozenTrial) -> Attempt:
        """Return an Optuna trial of the journal; its parameters are completed if a driver died over them."""
        if frozen.state not in STATES:
            return self._begun(OptunaTrial(self.study, frozen._trial_id))
        label = frozen.params.get(DEFENSE, next(iter(self.tuning.space.branches)))
        attempt = self._attempt(frozen.number, label, frozen.params)
        attempt.decision = read_decision(frozen, list(self.tuning.study.objectives))
        return attempt

    def _begun(self, trial: OptunaTrial) -> Attempt:
        attempt = self._attempt(trial.number, *suggest(trial, self.tuning.space))
        attempt.optuna = trial
        return attempt

    def _attempt(self, number: int, label: str, chosen: Mapping[str, Scalar]) -> Attempt:
        defense = self.tuning.space.branches[label].filled(chosen)
        planned, inapplicable = self._planned(defense, self.tuning.tuning)
        return Attempt(number, label, chosen, defense, planned, inapplicable)

    def _planned(self, defense: Node, by: Attacks) -> tuple[Planned, tuple[str, ...]]:
        plan = self.tuning.plan(defense, by, {})
        found: dict[int, list[PlannedTrial]] = {seed: [] for seed in self.tuning.settings.seeds}
        for trial in plan.todo:
            found[trial.spec.seed].append(trial)
        return found, tuple(plan.reasons())

    def _next_rung(self, attempt: Attempt) -> list[Trial]:
        """Take an Optuna trial as far as the rows reach and return the trials that it waits for."""
        found: list[Trial] = []
        while True:
            self._advance(attempt)
            if attempt.decision is not None:
                return found
            new = self._hand_out(attempt.trials(self._seeds(attempt)), attempt.number)
            if not new:
                return found
            found += new

    def _advance(self, attempt: Attempt) -> None:
        """Take an Optuna trial as far as the rows reach."""
        while attempt.decision is None:
            seeds = self._seeds(attempt)
            needed = [*attempt.ids(seeds), *self.verdicts.references(seeds)]
            if not attempt.ids(seeds):
                reasons = "; ".join(attempt.inapplicable)
                attempt.decision = Decision("failed", {}, {}, (), f"no attack applies: {reasons}")
            elif not all(map(self.rows.settled, needed)):
                return
            else:
                last = attempt.number - self.tuning.study.parallel
                earlier = [other for number, other in self.attempts.items() if number <= last]
                attempt.decision = self.verdicts.after(attempt, earlier)
                attempt.rungs += attempt.decision is None

    def _seeds(self, attempt: Attempt) -> tuple[int, ...]:
        return tuple(seed for rung in self.verdicts.rungs()[: attempt.rungs] for seed in rung)

    def _tell(self) -> bool:
        """Tell Optuna of what is decided, in the order of numbers; return whether there was anything.

        Number n - parallel + 1 waits until number n is asked for, even where it is decided long before.
        """
        told = False
        for attempt in self.untold:
            asked = len(self.attempts) >= min(attempt.number + self.tuning.study.parallel, self.wanted)
            if attempt.decision is None or not asked:
                break
            tell(self.study, attempt)
            told = True
            self.listener.optuna_trial(attempt.outcome(), self.standing)
        return told

    def _ask(self) -> bool:
        """Begin one more Optuna trial, if there is room; return whether it did."""
        room = len(self.untold) < self.tuning.study.parallel and len(self.attempts) < self.wanted
        if not room or self._held_back:
            return False
        attempt = self._begun(self.study.ask())
        self.attempts[attempt.number] = attempt
        return True

    def _judging(self) -> list[Trial]:
        """Return the trials that score the front by attacks it was not tuned against."""
        found = self._hand_out(self.judged(self.tuning.none, none=True), None)
        for number in self.front():
            found += self._hand_out(self.judged(self.attempts[number].defense), number)
        return found

    def _hand_out(self, trials: Sequence[PlannedTrial], number: int | None) -> list[Trial]:
        """Return those trials that are neither stored nor handed out, noting who asked for them first."""
        found = []
        for trial in trials:
            if trial.trial_id in self._asked or self.rows.settled(trial.trial_id):
                continue
            if self.limit is not None and len(self._asked) >= self.limit:
                self._held_back = True
                break
            self._asked.add(trial.trial_id)
            self.rows.ask(trial, number)
            found.append(Trial(trial.trial_id, trial.spec))
        return found


def _all(planned: Planned) -> list[PlannedTrial]:
    return [trial for trials in planned.values() for trial in trials]
