"""The time a run still needs, learned from the trials that it has finished."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from statistics import fmean
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
    """Estimates the time left: attacks by what each kind has taken so far, all else by what a trial needed.

    Kinds that none has finished of are guessed from their announced evaluations, at the rate of the others.
    All else is the lanes' time beside attacks: training, starting up. Trials that are solved, but not done
    because their bundle is not, count as the average of those left; before any is done, as all of the time.
    """

    def __init__(self, kinds: Counter[Kind], *, clock: Clock = time.monotonic) -> None:
        """Take how many trials of each kind are to be run."""
        self._left: Counter[tuple[str | None, str]] = Counter()
        self._announced: dict[tuple[str | None, str], int] = defaultdict(int)
        for kind, count in kinds.items():
            key = (kind.dataset, kind.attack)
            self._left[key] += count
            self._announced[key] = max(self._announced[key], kind.evaluations)
        self._times: dict[tuple[str | None, str], list[float]] = defaultdict(list)
        self._clock = clock
        self.begin(lanes=1)

    def begin(self, *, lanes: int) -> None:
        """Start the clock; what was done before tells how long trials take, but not how fast this run is."""
        self._lanes, self._began = lanes, self._clock()
        self._attacks_s, self._done, self._solved = 0.0, 0, 0

    def solve(self, count: int) -> None:
        """Note how many more trials are solved, but not done."""
        self._solved = count

    def finish(self, done: TrialDone) -> None:
        """Note that a trial is done."""
        key = (done.dataset, done.attack)
        self._left[key] -= 1
        self._done += 1
        if done.wall_s is not None:
            self._times[key].append(done.wall_s)
            self._attacks_s += done.wall_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since `begin`."""
        return self._clock() - self._began

    @property
    def eta_s(self) -> float | None:
        """Estimated seconds left; None until a trial is done that tells of the others."""
        left = +self._left
        ahead = max(left.total() - self._solved, 0)
        if not any(map(sum, self._times.values())):
            return self.elapsed_s * ahead / self._solved if self._solved else None
        if not self._done + self._solved:
            return None
        attack = sum(count * self._seconds(key) for key, count in left.items()) / max(left.total(), 1)
        attacked = self._attacks_s + self._solved * attack
        beside = max(self.elapsed_s * self._lanes - attacked, 0.0) / (self._done + self._solved)
        return ahead * (attack + beside) / self._lanes

    def _seconds(self, key: tuple[str | None, str]) -> float:
        if times := self._times.get(key):
            return fmean(times)
        known = sum(self._announced[each] + 1 for each in self._times)
        return (self._announced[key] + 1) * sum(map(fmean, self._times.values())) / known
