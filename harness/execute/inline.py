"""The inline executor: one lane in this process, no ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fl.specs import TrialSpec
    from harness.execute.executor import LaneSettings
    from harness.execute.lane import Lane
    from harness.execute.work import Receipt, WorkItem


class InlineExecutor:
    """Runs one item at a time, inside `poll`."""

    def __init__(self, settings: LaneSettings) -> None:
        self._settings = settings
        self._lane: Lane | None = None
        self._item: WorkItem | None = None
        self._tick: Callable[[], None] = lambda: None

    def start(self, specs: Iterable[TrialSpec] = ()) -> None:
        """Import torch and make the lane; the plan has looked for the trials' files on this machine.

        Raises:
            UsageError: If a CUDA device was demanded and there is none that works.
        """
        import torch

        from harness.execute.lane import DeviceError, Lane

        gpu = self._settings.device == "auto" and torch.cuda.is_available()
        try:
            self._lane = Lane(self._settings, "inline", gpu=gpu)
        except DeviceError as error:
            raise UsageError(f"--device {self._settings.device}: {error}") from error

    def lanes(self) -> int:
        """Return 1."""
        return 1

    def describe(self) -> str:
        """Say where work happens."""
        return f"this process ({self._lane.device if self._lane else 'not started'})"

    def can_accept(self, item: WorkItem) -> bool:
        """Whether nothing is waiting to run."""
        return self._item is None

    def submit(self, item: WorkItem) -> None:
        """Keep the item for the next `poll`."""
        self._item = item

    def running(self) -> int:
        """Return 0 or 1."""
        return int(self._item is not None)

    def watch(self, tick: Callable[[], None]) -> None:
        """Have `tick` called after every trial of a bundle and every tenth of a stage."""
        self._tick = tick

    def poll(self, timeout: float) -> list[Receipt]:
        """Run the waiting item to its end; `timeout` cannot shorten it (deadlines inside the lane do)."""
        if self._item is None or self._lane is None:
            return []
        item, self._item = self._item, None
        return [self._lane.run(item, self._tick)]

    def cancel_all(self) -> None:
        """Forget what has not begun."""
        self._item = None

    def close(self) -> None:
        """Let go of the lane's caches."""
        self._lane = None
