"""The seam between the run loop and whatever computes: items in, receipts out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fl.specs import TrialSpec
    from harness.execute.work import Receipt, WorkItem

DeviceChoice = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class LaneSettings:
    """What every lane is told once; pickles small.

    Attributes:
        artifact_uri: Where artifacts lie.
        private_uri: Where what must not be shared lies.
        device: `auto` uses a GPU where the item was given one; `cuda` insists on it.
        engine_table: The solver's table as JSON (`attacks.engine.table`); None for the one that ships.
        metrics: Metrics to measure that are measured on request only.
    """

    artifact_uri: str
    private_uri: str
    device: DeviceChoice = "auto"
    engine_table: str | None = None
    metrics: tuple[str, ...] = ()


class Executor(Protocol):
    """Runs work items on lanes. Retries, deadlines' consequences and commits are the run loop's business."""

    def start(self, specs: Iterable[TrialSpec] = ()) -> None:
        """Start or join what computes.

        Args:
            specs: Trials to come; what they read from disk must be wherever they may be computed.

        Raises:
            UsageError: If it cannot be reached or does not fit the request (address, device, store, files).
        """

    def lanes(self) -> int:
        """Return how many items can run at the same time."""

    def describe(self) -> str:
        """Return one line for people, such as `2 lanes on this machine`."""

    def can_accept(self, item: WorkItem) -> bool:
        """Whether a slot is free for `item` now."""

    def submit(self, item: WorkItem) -> None:
        """Start `item`; only after `can_accept`."""

    def running(self) -> int:
        """Return how many submitted items have no receipt yet."""

    def watch(self, tick: Callable[[], None]) -> None:
        """Have `tick` called now and then while `poll` takes longer than it should."""

    def poll(self, timeout: float) -> list[Receipt]:
        """Return receipts of finished items, waiting up to `timeout` seconds; failures are receipts too."""

    def cancel_all(self) -> None:
        """Stop at once; what was running gives no receipt."""

    def close(self) -> None:
        """Give everything back."""
