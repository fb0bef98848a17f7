"""What a run looks like while it goes on: a live panel on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from harness.cli.leakage import Tally, leakage_table
from harness.cli.output import duration
from harness.cli.remaining import Clock, Kind, Remaining
from harness.execute.events import Progress, RunListener, RunResult, TrialDone

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

ProgressStyle = Literal["rich", "plain", "none"]

LINE_EVERY_S = 15.0
MAX_ROWS = 24
MAX_RUNNING = 8
MAX_MESSAGES = 5


class NoDisplay:
    """Says nothing."""

    def started(self, total: int, lanes: int, description: str) -> None:
        """Ignore it."""

    def progress(self, progress: Progress) -> None:
        """Ignore it."""

    def trial(self, done: TrialDone) -> None:
        """Ignore it."""

    def message(self, text: str) -> None:
        """Ignore it."""

    def finished(self, result: RunResult) -> None:
        """Ignore it."""


class PlainDisplay:
    """A line now and then, for logs: where it stands, every failure, every message."""

    def __init__(self, console: Console, remaining: Remaining, *, clock: Clock = time.monotonic) -> None:
        self._console = console
        self._remaining = remaining
        self._clock = clock
        self._said = clock()
        self._began = False
        self._lanes = 1

    def started(self, total: int, lanes: int, description: str) -> None:
        """Say what runs where."""
        self._say(f"{total:,} trials on {description}")
        self._lanes = lanes

    def progress(self, progress: Progress) -> None:
        """Say where it stands, if nothing was said for a while."""
        if not self._began:
            self._remaining.begin(lanes=self._lanes)
            self._began = True
        self._remaining.solve(progress.solved)
        if self._clock() - self._said >= LINE_EVERY_S:
            self._say(_standing(progress, self._remaining))

    def trial(self, done: TrialDone) -> None:
        """Say which trial failed."""
        self._remaining.finish(done)
        if done.status == "failed":
            self._say(f"failed: {_named(done)}: {done.error}")

    def message(self, text: str) -> None:
        """Say it."""
        self._say(text)

    def finished(self, result: RunResult) -> None:
        """Say how it ended."""
        self._say(ending(result))

    def _say(self, text: str) -> None:
        self._said = self._clock()
        self._console.print(text, markup=False, soft_wrap=True)


@dataclass
class LiveDisplay:
    """A panel that is redrawn in place: progress, what runs, failures, leakage so far per defense.

    Attributes:
        console: The terminal.
        remaining: The time left.
    """

    console: Console
    remaining: Remaining
    _tally: Tally = field(default_factory=Tally)
    _progress: Progress | None = None
    _where: str = ""
    _lanes: int = 1
    _messages: list[str] = field(default_factory=list)
    _errors: Counter[str] = field(default_factory=Counter)
    _live: Live | None = None

    def started(self, total: int, lanes: int, description: str) -> None:
        """Draw the panel; from here on it redraws itself."""
        from rich.live import Live

        self._where, self._lanes = description, lanes
        self._live = Live(self, console=self.console, refresh_per_second=4, transient=True)
        self._live.start()

    def progress(self, progress: Progress) -> None:
        """Take note."""
        if self._progress is None:
            self.remaining.begin(lanes=self._lanes)
        self.remaining.solve(progress.solved)
        self._progress = progress

    def trial(self, done: TrialDone) -> None:
        """Count it."""
        self.remaining.finish(done)
        self._tally.add(done)
        if done.status == "failed":
            self._errors[done.error or "no reason given"] += 1

    def message(self, text: str) -> None:
        """Keep the last few."""
        self._messages = [*self._messages, text][-MAX_MESSAGES:]

    def finished(self, result: RunResult) -> None:
        """Take the panel away and say how it ended."""
        if self._live is not None:
            self._live.stop()
        for error, count in self._errors.most_common(MAX_MESSAGES):
            self.console.print(f"failed {count} x: {error}", markup=False, style="red")
        self.console.print(ending(result), markup=False)

    def __rich__(self) -> RenderableType:
        """Draw the current state."""
        from rich.console import Group as Stack
        from rich.padding import Padding
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        progress = self._progress
        if progress is None:
            return Text(f"starting on {self._where}", style="dim")
        parts: list[RenderableType] = [
            Text(_standing(progress, self.remaining)),
            Padding(ProgressBar(total=max(progress.total, 1), completed=_reached(progress), width=60)),
            Text(
                f"{self._where}; running {len(progress.running)}, waiting {progress.items_left}", style="dim"
            ),
        ]
        parts += [Text(f"  {name}", style="dim") for name in progress.running[:MAX_RUNNING]]
        parts += [Text(text, style="yellow") for text in self._messages]
        parts += [Text(f"failed {n} x: {error}", style="red") for error, n in self._errors.most_common(3)]
        rows = self._tally.rows()
        if rows:
            parts += [Text(), leakage_table(rows[:MAX_ROWS])]
        if len(rows) > MAX_ROWS:
            parts.append(Text(f"and {len(rows) - MAX_ROWS} more", style="dim"))
        return Stack(*parts)


def ending(result: RunResult) -> str:
    """Return how a run ended, in one line."""
    counts = [f"{result.complete:,} complete", f"{result.failed:,} failed" if result.failed else ""]
    counts += [f"{result.not_applicable:,} not applicable" if result.not_applicable else ""]
    counts += [f"{result.remaining:,} left to run" if result.remaining else ""]
    how = "stopped at once" if result.killed else "stopped" if result.remaining else "finished"
    return f"{how} after {duration(result.wall_s)}: {', '.join(filter(None, counts))}"


def _standing(progress: Progress, remaining: Remaining) -> str:
    parts = [f"{_reached(progress):,} of {progress.total:,} trials"]
    parts += [f"{progress.failed:,} failed"] if progress.failed else []
    parts += [f"{progress.retried:,} retried"] if progress.retried else []
    parts.append(duration(remaining.elapsed_s))
    if progress.done < progress.total:
        eta = remaining.eta_s
        parts.append("time left not known yet" if eta is None else f"about {duration(eta)} left")
    return " | ".join(parts)


def _reached(progress: Progress) -> int:
    return progress.done + progress.solved


def _named(done: TrialDone) -> str:
    strength = f" {done.noise_budget:g}" if done.defense != "none" else ""
    where = f" on {done.dataset}" if done.dataset else ""
    return f"{done.attack} against {done.defense}{strength}{where}, seed {done.seed} ({done.trial_id})"


def style_for(console: Console) -> ProgressStyle:
    """Return `rich` on a terminal that a person watches, else `plain`."""
    quiet = os.environ.get("CI") or os.environ.get("NO_COLOR")
    return "rich" if console.is_terminal and not console.is_dumb_terminal and not quiet else "plain"


def display(style: ProgressStyle, console: Console, kinds: Counter[Kind]) -> RunListener:
    """Return the display of a run.

    Args:
        style: Which.
        console: Where it goes.
        kinds: How many trials of each kind are to be run, for the time left.
    """
    if style == "rich":
        return LiveDisplay(console, Remaining(kinds))
    return PlainDisplay(console, Remaining(kinds)) if style == "plain" else NoDisplay()
