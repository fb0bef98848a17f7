"""What rows say of an Optuna trial: its values, whether it is worth further seeds, which are the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.tune.attempt import Decision
from harness.tune.dominance import Values, best, hopeless, losses
from harness.tune.quantities import Evidence, Unknown, Value, quantity

if TYPE_CHECKING:
    from harness.plan.planner import PlannedTrial
    from harness.tune.attempt import Attempt
    from harness.tune.document import Tuning
    from harness.tune.evidence import Rows


@dataclass(frozen=True)
class Verdicts:
    """Decides on the Optuna trials of one study.

    Attributes:
        tuning: The tune file.
        rows: What is known of trials.
        none: The trials without a defense, by seed.
    """

    tuning: Tuning
    rows: Rows
    none: Mapping[int, Sequence[PlannedTrial]]

    def rungs(self) -> list[tuple[int, ...]]:
        """Return the seeds of every rung: one after the other if Optuna trials may end early, else all."""
        seeds, rule = self.tuning.settings.seeds, self.tuning.study.prune
        if rule is None:
            return [seeds]
        return [seeds[: rule.after], *((seed,) for seed in seeds[rule.after :])]

    def evidence(self, attempt: Attempt, seeds: Sequence[int]) -> Evidence:
        """Return the rows that an Optuna trial is judged by, under some seeds."""
        return Evidence(self.rows.of(attempt.ids(seeds)), self.rows.of(self.references(seeds)))

    def references(self, seeds: Sequence[int]) -> list[str]:
        """Return the ids of the trials without a defense, under some seeds."""
        return [trial.trial_id for seed in seeds for trial in self.none[seed]]

    def after(self, attempt: Attempt, earlier: Iterable[Attempt]) -> Decision | None:
        """Return what an Optuna trial comes to after its present rung; None if it goes on.

        Args:
            attempt: The Optuna trial; what is settled of its rung's trials is in the rows.
            earlier: Optuna trials that were told before it was asked for.
        """
        rungs = self.rungs()
        seeds = tuple(seed for rung in rungs[: attempt.rungs] for seed in rung)
        if errors := self.rows.errors(attempt.ids(seeds)):
            return Decision("failed", {}, {}, seeds, next(iter(errors.values())), tuple(errors))
        if attempt.rungs == len(rungs):
            decision = self.judgement(attempt, seeds)
            missing = self.rows.errors(self.references(seeds)) if decision.state == "failed" else {}
            return decision._replace(errors=tuple(missing))
        if self._hopeless(attempt, earlier, seeds):
            reason = f"dominated on {len(seeds)} of {len(self.tuning.settings.seeds)} seeds"
            return Decision("pruned", {}, {}, seeds, reason)
        return None

    def judgement(self, attempt: Attempt, seeds: tuple[int, ...]) -> Decision:
        """Return an Optuna trial's values and constraints over some seeds; failed if one is not known."""
        evidence, wanted = self.evidence(attempt, seeds), self.tuning.study
        values = {name: quantity(name, evidence, wanted.leakage) for name in wanted.objectives}
        bounded = {name: quantity(name, evidence, wanted.leakage) for name in wanted.constraints}
        reasons = [f"{name}: {value.reason}" for name, value in _unknown(values | bounded).items()]
        known = _known(values)
        reasons += [
            f"{name}: expected a finite number, got {value}"
            for name, value in known.items()
            if not math.isfinite(value)
        ]
        if reasons:
            return Decision("failed", {}, {}, seeds, "; ".join(reasons))
        excess = {name: wanted.constraints[name].excess(value) for name, value in _known(bounded).items()}
        return Decision("complete", known, excess, seeds)

    def front(self, attempts: Iterable[Attempt]) -> list[int]:
        """Return the numbers of the feasible complete Optuna trials that no other dominates."""
        done = [(attempt.number, attempt.decision) for attempt in attempts if attempt.told]
        kept = {
            number: self._losses(decision.values)
            for number, decision in done
            if decision is not None and decision.state == "complete" and decision.feasible
        }
        return best(kept)

    def _hopeless(self, attempt: Attempt, earlier: Iterable[Attempt], seeds: tuple[int, ...]) -> bool:
        rule, own = self.tuning.study.prune, self._partial(attempt, seeds)
        if rule is None or own is None:
            return False
        others = [
            self._partial(other, seeds)
            for other in earlier
            if other.decision is not None
            if other.decision.state == "complete" and other.decision.feasible
        ]
        return hopeless(own, [other for other in others if other is not None], rule)

    def _partial(self, attempt: Attempt, seeds: tuple[int, ...]) -> Values | None:
        """Return an Optuna trial's losses over some seeds, or None where a value is not known."""
        decision = self.judgement(attempt, seeds)
        return self._losses(decision.values) if decision.state == "complete" else None

    def _losses(self, values: Mapping[str, float]) -> Values:
        objectives = self.tuning.study.objectives
        return losses([values[name] for name in objectives], list(objectives.values()))


def _unknown(values: Mapping[str, Value]) -> dict[str, Unknown]:
    return {name: value for name, value in values.items() if isinstance(value, Unknown)}


def _known(values: Mapping[str, Value]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not isinstance(value, Unknown)}
