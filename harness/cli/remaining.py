"""The time a run still needs, learned from the trials that it has finished."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from attacks import ATTACKS
from harness.execute.events import TrialDone

if TYPE_CHECKING:
    from fl.specs import TrialSpec

Clock = Callable[[], float]


class Kind(NamedTuple):
    """What a trial's time mostly depends on.

    Attributes:
        dataset: Data set, or None for a recorded observation.
        attack: Attack.
        evaluations: Gradient evaluations that the attack's card announces for its options, per target.
    """

    dataset: str | None
    attack: str
    evaluations: int


def kind_of(spec: TrialSpec) -> Kind:
    """Return the kind of a trial."""
    evaluations = ATTACKS.get(spec.attack.name).evaluations(spec.attack.config)
    return Kind(spec.data.name if spec.data else None, spec.attack.name, evaluations)


class Remaining:
    """Estimates the time left: what each kind has taken so far, times how many of it are left.

    Kinds that none has finished of are guessed from their announced evaluations, at the rate of the others.
    What trials share (training) and how many run side by side enters through the time that has passed.
    """

    def __init__(self, kinds: Counter[Kind], *, clock: Clock = time.monotonic) -> None:
        """Take how many trials of each kind are to be run."""
        self._left = Counter({(kind.dataset, kind.attack): 0 for kind in kinds})
        self._announced: dict[tuple[str | None, str], int] = defaultdict(int)
        for kind, count in kinds.items():
            key = (kind.dataset, kind.attack)
            self._left[key] += count
            self._announced[key] = max(self._announced[key], kind.evaluations)
        self._times: dict[tuple[str | None, str], list[float]] = defaultdict(list)
        self._spent = 0.0
        self._clock = clock
        self._began = clock()

    def begin(self) -> None:
        """Start the clock; what was done before tells how long trials take, but not how fast this run is."""
        self._began, self._spent = self._clock(), 0.0

    def finish(self, done: TrialDone) -> None:
        """Note that a trial is done."""
        key = (done.dataset, done.attack)
        self._left[key] -= 1
        if done.wall_s is not None:
            self._times[key].append(done.wall_s)
            self._spent += done.wall_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since `begin`."""
        return self._clock() - self._began

    @property
    def eta_s(self) -> float | None:
        """Estimated seconds left; None until something is done."""
        if self._spent <= 0:
            return None
        left = sum(count * self._seconds(key) for key, count in self._left.items() if count > 0)
        return left * self.elapsed_s / self._spent

    def _seconds(self, key: tuple[str | None, str]) -> float:
        if times := self._times.get(key):
            return sum(times) / len(times)
        known = sum(self._announced[k] + 1 for k in self._times)
        rate = sum(sum(times) / len(times) for times in self._times.values()) / known
        return (self._announced[key] + 1) * rate
