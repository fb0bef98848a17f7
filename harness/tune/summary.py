"""What a study found: its front, how sure that is, what other attacks say, and budgets at equal cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from defenses import DEFENSES
from harness.analysis.front import Point, hypervolume, knee
from harness.analysis.iso_utility import Configuration, Curve, IsoUtility, off_budget, size_of_test_part
from harness.analysis.uncertainty import Estimate, clustered_mean
from harness.tune.quantities import UTILITIES, Evidence, Row, by_seed, excess_by_attack
from harness.tune.space import DEFENSE

if TYPE_CHECKING:
    from harness.tune.attempt import Attempt
    from harness.tune.events import OptunaTrialDone, State
    from harness.tune.tuner import Tuner

DROPS = (0.01, 0.05)
"""Losses of accuracy at which defenses are compared."""
LARGEST_LEAKAGE = {"ssim": 1.0, "success_rate": 1.0, "identification_top1": 1.0, "attack_top1": 1.0}
"""Reference of the hypervolume; for other metrics it is what leaks without a defense."""


class Judged(NamedTuple):
    """What attacks say of a defense that it was not tuned against.

    Attributes:
        leakage: Of the strongest of them, beyond the floor.
        gap: That, less what the strongest tuning attack took, by seed.
        exposed: Whether the gap is beyond the tolerance, and its interval, if there is one, above 0.
    """

    leakage: Estimate
    gap: Estimate
    exposed: bool


class Member(NamedTuple):
    """A defense with what it costs and leaks.

    Attributes:
        done: The Optuna trial; None for the reference, no defense.
        accuracy: Mean over seeds.
        drop: Accuracy lost, paired by seed; None for the reference.
        leakage: Of the strongest tuning attack, beyond the floor; not cut off at 0.
        judged: What the judge says; None without one, or before it is done.
    """

    done: OptunaTrialDone | None
    accuracy: Estimate
    drop: Estimate | None
    leakage: Estimate
    judged: Judged | None


class Summary(NamedTuple):
    """A study, as far as it is.

    Attributes:
        told: Optuna trials that are told, by state.
        left: Optuna trials that are not.
        none: The reference.
        front: Feasible Optuna trials that no other dominates, by number.
        knee: Number of the front's best bargain, or None; of leakage against a utility.
        hypervolume: Area that the front dominates, or None; likewise.
        iso_utility: By defense and loss of accuracy.
    """

    told: Mapping[State, int]
    left: int
    none: Member
    front: Sequence[Member]
    knee: int | None
    hypervolume: float | None
    iso_utility: Sequence[IsoUtility]


def summarise(tuner: Tuner, told: Mapping[State, int]) -> Summary:
    """Return what a study has found so far."""
    seeds = tuner.tuning.settings.seeds
    reference = tuner.rows.of(tuner.verdicts.references(seeds))
    judged = [trial.trial_id for trial in tuner.judged(tuner.tuning.none, none=True)]
    none = _member(tuner, None, Evidence(reference, ()), tuner.rows.of(judged))
    front = [_front_member(tuner, tuner.attempts[number]) for number in sorted(tuner.front())]
    best, area = _trade_off(tuner, front, none)
    curves = _curves(tuner, reference, none.leakage)
    iso = [curve.at(drop) for curve in curves for drop in DROPS]
    return Summary(told, tuner.left, none, front, best, area, iso)


def _front_member(tuner: Tuner, attempt: Attempt) -> Member:
    judged = [trial.trial_id for trial in tuner.judged(attempt.defense)]
    evidence = tuner.verdicts.evidence(attempt, tuner.tuning.settings.seeds)
    return _member(tuner, attempt.outcome(), evidence, tuner.rows.of(judged))


def _member(tuner: Tuner, done: OptunaTrialDone | None, evidence: Evidence, judged: Sequence[Row]) -> Member:
    return Member(
        done=done,
        accuracy=_accuracy(evidence).within(0, 1),
        drop=None if done is None else _drop(evidence),
        leakage=_estimate(_strongest(tuner, evidence.rows)),
        judged=_judged(tuner, evidence.rows, judged),
    )


def _judged(tuner: Tuner, tuned: Sequence[Row], judged: Sequence[Row]) -> Judged | None:
    ours, theirs = _strongest(tuner, tuned), _strongest(tuner, judged, beside=tuned)
    if not theirs:
        return None
    gap = _estimate({seed: value - ours[seed] for seed, value in theirs.items() if seed in ours})
    exposed = gap.mean > tuner.tuning.tolerance and (gap.low > 0 or not gap.known)
    return Judged(_estimate(theirs), gap, exposed)


def _strongest(tuner: Tuner, rows: Sequence[Row], *, beside: Sequence[Row] = ()) -> dict[int, float]:
    """Return what the attack that takes most on average takes beyond the floor, by seed."""
    excesses = excess_by_attack(rows, tuner.tuning.study.leakage, beside=beside).values()
    return max(excesses, key=lambda values: fmean(values.values()), default={})


def _accuracy(evidence: Evidence) -> Estimate:
    return _estimate(_numbers(evidence.rows, lambda row: row.get("accuracy")))


def _drop(evidence: Evidence) -> Estimate | None:
    before = _numbers(evidence.none, lambda row: row.get("accuracy"))
    after = _numbers(evidence.rows, lambda row: row.get("accuracy"))
    pairs = {seed: before[seed] - after[seed] for seed in after if seed in before}
    return _estimate(pairs) if pairs else None


def _numbers(rows: Sequence[Row], read: Callable[[Row], float | None]) -> dict[int, float]:
    found = {seed: read(row) for seed, row in by_seed(rows).items()}
    return {seed: value for seed, value in found.items() if value is not None}


def _estimate(by_seed: Mapping[int, float]) -> Estimate:
    return clustered_mean(list(by_seed.values()), list(by_seed))


def _trade_off(tuner: Tuner, front: Sequence[Member], none: Member) -> tuple[int | None, float | None]:
    """Return the knee and the hypervolume of leakage against the first utility among the objectives."""
    utility = next((name for name in tuner.tuning.study.objectives if name in UTILITIES), None)
    if utility is None or "leakage" not in tuner.tuning.study.objectives:
        return None, None
    points = [
        Point(str(member.done.number), member.done.values["leakage"], member.done.values[utility])
        for member in front
        if member.done is not None
    ]
    best = knee(points)
    metric = tuner.tuning.study.leakage.metric
    reference = LARGEST_LEAKAGE.get(metric, none.leakage.mean)
    return best and int(best.name), hypervolume(points, reference_leakage=reference)


def _curves(tuner: Tuner, reference: Sequence[Row], none: Estimate) -> list[Curve]:
    """Return the defenses of the space, each with the Optuna trials that were evaluated under every seed."""
    found = []
    for label in tuner.tuning.space.branches:
        done = [
            attempt for attempt in tuner.attempts.values() if attempt.label == label and _is_complete(attempt)
        ]
        evidence = [tuner.verdicts.evidence(attempt, tuner.tuning.settings.seeds) for attempt in done]
        tried = [
            Configuration(
                _options(attempt),
                attempt.noise_budget or 0.0,
                _drop(each),
                _estimate(_strongest(tuner, each.rows)),
            )
            for attempt, each in zip(done, evidence, strict=True)
        ]
        if tried:
            spec = next(iter(done[0].planned.values()))[0].spec.canonical
            known = none if reference else None
            found.append(
                Curve(tuner.tuning.name, label, tried, known, off_budget(spec), size_of_test_part(spec))
            )
    return found


def _is_complete(attempt: Attempt) -> bool:
    return attempt.told and attempt.decision is not None and attempt.decision.state == "complete"


def _options(attempt: Attempt) -> str:
    """Return what tells an Optuna trial from others of its branch but for the noise budget."""
    plugin = next(iter(attempt.planned.values()))[0].spec.defense
    field = DEFENSES.get(plugin.name).noise_budget(plugin.config).field
    budget = {f"{attempt.label}.{path}" for path in ("noise_budget", field.replace("links.-1.", ""))}
    others = {name: value for name, value in attempt.chosen.items() if name not in {*budget, DEFENSE}}
    shown = [f"{name.removeprefix(attempt.label + '.')} {_text(value)}" for name, value in others.items()]
    return f"{attempt.label} ({', '.join(shown)})" if shown else attempt.label


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
