"""Who gives a run further trials while it goes on, by what the ones before have shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from harness.execute.work import Trial, Usage
    from harness.store.experiment import TrialRows


class Feed(Protocol):
    """Called from the run loop's thread, never concurrently."""

    def trained(self, federation: str, usage: Usage) -> None:
        """Hear what the federation with this key has cost; before the rows of its trials."""

    def heard(self, rows: Sequence[TrialRows]) -> None:
        """Hear of trials that are complete or have failed for good; their rows are stored."""

    def more(self) -> Sequence[Trial]:
        """Return trials to run that it has not returned before; none while it waits, or at the end."""
