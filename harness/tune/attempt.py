"""One Optuna trial: what it asks of the harness, what it came to, and how Optuna is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from optuna.trial import TrialState

from harness.tune.events import OptunaTrialDone, State

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as OptunaTrial

    from harness.config.yaml_loader import Node
    from harness.plan.planner import PlannedTrial
    from harness.tune.space import Scalar

STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
TRIALS = "trials"
"""User attribute of an Optuna trial: ids of the trials that it was judged by."""
SEEDS = "seeds"
"""User attribute: the seeds under which it was evaluated."""
ERRORS = "errors"
"""User attribute: ids of its trials that failed for good."""
REASON = "reason"
"""User attribute: why it failed or was ended early."""


class Decision(NamedTuple):
    """What an Optuna trial came to.

    Attributes:
        state: Its state.
        values: By objective; empty unless complete.
        constraints: How far each constraint is exceeded; at most 0 where it is kept.
        seeds: The seeds it was evaluated under.
        reason: Why it failed or was ended early, or None.
        errors: Ids of its trials that failed.
    """

    state: State
    values: Mapping[str, float]
    constraints: Mapping[str, float]
    seeds: tuple[int, ...]
    reason: str | None = None
    errors: tuple[str, ...] = ()

    @property
    def feasible(self) -> bool:
        """Whether all constraints are kept."""
        return all(excess <= 0 for excess in self.constraints.values())


@dataclass
class Attempt:
    """One Optuna trial.

    Attributes:
        number: Optuna's number.
        label: The branch of the space.
        chosen: Its parameters.
        defense: The defense with them.
        planned: Its applicable trials, by seed.
        inapplicable: Why others of its trials are not.
        decision: What it came to, once that is known.
        optuna: For telling; None once told.
        rungs: Rungs of seeds that are begun.
    """

    number: int
    label: str
    chosen: Mapping[str, Scalar]
    defense: Node
    planned: Mapping[int, Sequence[PlannedTrial]]
    inapplicable: tuple[str, ...]
    decision: Decision | None = None
    optuna: OptunaTrial | None = None
    rungs: int = 1

    @property
    def told(self) -> bool:
        """Whether Optuna knows what it came to."""
        return self.optuna is None

    @property
    def noise_budget(self) -> float | None:
        """The defense's noise budget; None where no trial applies."""
        specs = [trial.spec for trials in self.planned.values() for trial in trials]
        return specs[0].noise_budget if specs else None

    def trials(self, seeds: Sequence[int]) -> list[PlannedTrial]:
        """Return its trials under some seeds."""
        return [trial for seed in seeds for trial in self.planned[seed]]

    def ids(self, seeds: Sequence[int]) -> list[str]:
        """Return the ids of its trials under some seeds."""
        return [trial.trial_id for trial in self.trials(seeds)]

    def outcome(self) -> OptunaTrialDone:
        """Return what it came to."""
        assert self.decision is not None
        return OptunaTrialDone(
            number=self.number,
            label=self.label,
            noise_budget=self.noise_budget,
            chosen=self.chosen,
            state=self.decision.state,
            values=self.decision.values,
            feasible=self.decision.feasible,
            reason=self.decision.reason,
        )


def read_decision(frozen: FrozenTrial, objectives: Sequence[str]) -> Decision:
    """Return what an Optuna trial came to that Optuna was told of."""
    attributes = frozen.user_attrs
    return Decision(
        state=STATES[frozen.state],
        values=dict(zip(objectives, frozen.values or (), strict=False)),
        constraints=frozen.constraints,
        seeds=tuple(attributes.get(SEEDS, ())),
        reason=attributes.get(REASON),
        errors=tuple(attributes.get(ERRORS, ())),
    )


def tell(study: optuna.Study, attempt: Attempt) -> None:
    """Tell Optuna what an Optuna trial came to; the values come last and make it so."""
    trial, decision = attempt.optuna, attempt.decision
    assert trial is not None
    assert decision is not None
    trial.set_user_attr(TRIALS, attempt.ids(decision.seeds))
    trial.set_user_attr(SEEDS, list(decision.seeds))
    if decision.reason is not None:
        trial.set_user_attr(REASON, decision.reason)
    if decision.errors:
        trial.set_user_attr(ERRORS, list(decision.errors))
    for name, excess in decision.constraints.items():
        if name not in trial.constraints:  # a driver may have died after this line
            trial.set_constraint(name, excess)
    states = {state: theirs for theirs, state in STATES.items()}
    values: Any = list(decision.values.values()) if decision.state == "complete" else None
    study.tell(trial, values, state=states[decision.state])
    attempt.optuna = None
