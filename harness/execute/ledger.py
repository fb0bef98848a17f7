"""What becomes of an item that failed: again, with fewer lanes, in halves, or a failed row.

Ray's own retries are off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from attacks.engine.table import narrower
from harness.execute.schedule import lanes_of
from harness.execute.work import BundleItem, Failure, FailureKind, WorkItem

if TYPE_CHECKING:
    from harness.execute.work import Trial

ATTEMPTS: dict[FailureKind, int] = {
    "exception": 1,  # the same inputs raise the same exception
    "device": 1,
    "timeout": 2,
    "out_of_memory": 2,
    "killed": 3,
}
"""How often a unit is tried on its own before a failure of this kind is final."""
OWN: frozenset[FailureKind] = frozenset({"exception", "device"})
"""Failures of a single trial that its company in a bundle has no part in."""


class Ledger:
    """Counts attempts and decides.

    Args:
        device: Type of device that attacks are expected on, for bundles whose lane died without a word.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._submitted: Counter[str] = Counter()
        self._alone: Counter[str] = Counter()

    def started(self, item: WorkItem) -> None:
        """Note that an item was submitted."""
        units = _units(item)
        self._submitted.update(units)
        if len(units) == 1:
            self._alone.update(units)

    def attempts(self, trial: Trial) -> int:
        """Return how often a trial was submitted in this run, in company or alone."""
        return self._submitted[trial.trial_id]

    def after(self, item: WorkItem, failure: Failure) -> list[WorkItem]:
        """Return what to do instead of a failed item; nothing if its failure is final.

        A bundle that ran out of memory goes down the solver's lane widths, to the plain loop. Otherwise it is
        split in halves down to the single trial, so that one bad trial costs only itself; but a device that
        does not work fails them all alike.
        """
        if failure.kind == "device":
            return []
        if isinstance(item, BundleItem) and failure.kind == "out_of_memory":
            lanes = lanes_of(item, self._device) if failure.lanes is None else failure.lanes
            if (limit := narrower(lanes)) is not None:
                return [replace(item, lane_limit=limit, attempt=item.attempt + 1)]
        if isinstance(item, BundleItem) and len(item.trials) > 1:
            middle = len(item.trials) // 2
            halves = (item.trials[:middle], item.trials[middle:])
            return [replace(item, trials=half, attempt=item.attempt + 1) for half in halves]
        (unit,) = _units(item)
        if self._alone[unit] >= ATTEMPTS[failure.kind]:
            return []
        return [replace(item, attempt=item.attempt + 1) if isinstance(item, BundleItem) else item]

    def alone(self, item: BundleItem, failures: Mapping[str, Failure]) -> list[BundleItem]:
        """Return the trials that failed in a bundle whose others are stored, and are tried again alone.

        In company a trial may run out of time or memory that it would have had for itself.
        """
        return [
            replace(item, trials=(trial,), attempt=item.attempt + 1)
            for trial in item.trials
            if (failure := failures.get(trial.trial_id))
            and failure.kind not in OWN
            and self._alone[trial.trial_id] < ATTEMPTS[failure.kind]
        ]


def _units(item: WorkItem) -> list[str]:
    return [trial.trial_id for trial in item.trials] if isinstance(item, BundleItem) else [item.item_id]
