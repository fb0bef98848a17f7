"""What a study looks like while it goes on, and what it found."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.cli.compare import interval, iso_table, number
from harness.cli.display import ProgressStyle, ending
from harness.cli.output import duration, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table

    from harness.execute.events import Progress, RunResult, TrialDone
    from harness.tune.events import OptunaTrialDone, Standing
    from harness.tune.summary import Member, Summary

LINE_EVERY_S = 15.0
MAX_FRONT = 12
MAX_RUNNING = 6
MAX_MESSAGES = 5


@dataclass
class TuningDisplay:
    """Follows a study (`harness.tune.events.TuneListener`).

    Attributes:
        console: Where it goes.
        style: `rich`: a panel that redraws itself; `plain`: lines; `none`: nothing but failures' absence.
        total: Optuna trials of the study.
        clock: Seconds.
    """

    console: Console
    style: ProgressStyle
    total: int
    clock: Callable[[], float] = time.monotonic
    _standing: Standing | None = None
    _progress: Progress | None = None
    _where: str = ""
    _began: float = 0.0
    _said: float = 0.0
    _told: int = 0
    _messages: list[str] = field(default_factory=list)
    _live: Live | None = None

    def resumed(self, standing: Standing) -> None:
        """Count what is there already."""
        self._standing = standing

    def started(self, total: int, lanes: int, description: str) -> None:
        """Say where it runs."""
        self._began = self._said = self.clock()
        self._where = description
        if self.style == "rich":
            from rich.live import Live

            self._live = Live(self, console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        else:
            told = 0 if self._standing is None else self._standing.told
            there = f"{told:,} are there, " if told else ""
            self._say(f"{there}up to {self.total:,} Optuna trials on {description}")

    def progress(self, progress: Progress) -> None:
        """Say where it stands, if nothing was said for a while."""
        self._progress = progress
        if self.style == "plain" and self.clock() - self._said >= LINE_EVERY_S:
            self._say(self._line())

    def trial(self, done: TrialDone) -> None:
        """Say which trial failed."""
        if done.status == "failed":
            self.message(f"failed: {done.attack} on {done.defense}, seed {done.seed}: {done.error}")

    def message(self, text: str) -> None:
        """Say it."""
        self._messages = [*self._messages, text][-MAX_MESSAGES:]
        self._say(text)

    def optuna_trial(self, done: OptunaTrialDone, standing: Standing) -> None:
        """Say what an Optuna trial came to."""
        self._standing = standing
        self._told += 1
        on_front = any(done.number == other.number for other in standing.front)
        values = ", ".join(f"{name} {value:.4g}" for name, value in done.values.items())
        kept = "" if done.feasible else "; breaks a constraint"
        said = values or f"{done.state}: {done.reason}"
        front = "; on the front" if on_front else ""
        self._say(f"Optuna trial {done.number}: {described(done)}: {said}{kept}{front} | {self._line()}")

    def finished(self, result: RunResult) -> None:
        """Take the panel away and say how it ended."""
        if self._live is not None:
            self._live.stop()
        if self.style != "none":
            self.console.print(ending(result), markup=False)

    def __rich__(self) -> RenderableType:
        """Draw the current state."""
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [Text(self._line()), Text(self._where, style="dim")]
        if self._progress is not None:
            parts += [Text(f"  {name}", style="dim") for name in self._progress.running[:MAX_RUNNING]]
        parts += [Text(text, style="yellow") for text in self._messages]
        if self._standing is not None and self._standing.front:
            parts += [Text(), front_so_far(self._standing.front[:MAX_FRONT])]
        return Group(*parts)

    def _say(self, text: str) -> None:
        if self.style == "plain":
            self._said = self.clock()
            self.console.print(text, markup=False, soft_wrap=True)

    def _line(self) -> str:
        elapsed = self.clock() - self._began
        left = self.total if self._standing is None else self._standing.left
        told = 0 if self._standing is None else self._standing.told
        parts = [f"{told:,} of {told + left:,} Optuna trials", duration(elapsed)]
        if self._progress is not None:
            parts.insert(1, f"{self._progress.done:,} trials")
        if self._told and left:
            parts.append(f"about {duration(elapsed / self._told * left)} left")
        elif left:
            parts.append("time left not known yet")
        return " | ".join(parts)


def described(done: OptunaTrialDone) -> str:
    """Return a defense with its parameters."""
    chosen = [
        f"{name.removeprefix(done.label + '.')}={value:.4g}"
        if isinstance(value, float)
        else f"{name.removeprefix(done.label + '.')}={value}"
        for name, value in done.chosen.items()
        if name.startswith(f"{done.label}.")
    ]
    return f"{done.label} {', '.join(chosen)}".rstrip()


def front_so_far(front: Iterable[OptunaTrialDone]) -> Table:
    """Return the front while the study goes on."""
    members = list(front)
    objectives = list(members[0].values) if members else []
    rows = [
        (done.number, described(done), *(number(done.values[name]) for name in objectives))
        for done in sorted(members, key=lambda done: list(done.values.values()))
    ]
    return table(("Optuna trial", "defense", *objectives), rows, numbers=("Optuna trial", *objectives))


def print_summary(out: Console, summary: Summary) -> None:
    """Write what a study found."""
    states = [f"{count:,} {state}" for state, count in sorted(summary.told.items())]
    states += [f"{summary.left:,} left"] if summary.left else []
    out.print(f"\nOptuna trials: {', '.join(states)}", markup=False)
    out.print("\n[bold]front[/bold] (leakage beyond the floor, by the tuning attacks and by the judge)")
    headings = ("Optuna trial", "defense", "accuracy", "drop", "leakage", "judged", "note")
    rows = [_row(member, summary.knee) for member in (summary.none, *summary.front)]
    out.print(table(headings, rows, numbers=("Optuna trial",)))
    if summary.hypervolume is not None:
        out.print(f"hypervolume {summary.hypervolume:.4f}", markup=False)
    exposed = [
        str(one.done.number) for one in summary.front if one.done and one.judged and one.judged.exposed
    ]
    if exposed:
        out.print(
            f"[bold red]Exposed by the judge[/bold red]: Optuna trials {', '.join(exposed)} leak more to "
            "attacks that they were not tuned against: the tuning attacks do not show what is protected."
        )
    if summary.iso_utility:
        out.print("\n[bold]noise budgets at equal cost[/bold]")
        out.print(iso_table(summary.iso_utility))


def _row(member: Member, knee: int | None) -> tuple[object, ...]:
    done, judged = member.done, member.judged
    notes = []
    if done is not None and done.number == knee:
        notes.append("knee")
    if judged is not None and judged.exposed and done is not None:
        notes.append(f"exposed: judged {judged.gap.mean:+.4f}")
    return (
        None if done is None else done.number,
        "none" if done is None else described(done),
        interval(member.accuracy),
        interval(member.drop),
        interval(member.leakage),
        None if judged is None else interval(judged.leakage),
        ", ".join(notes),
    )
