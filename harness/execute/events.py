"""What the run loop tells whoever watches it, and how a run ended; plain data, no terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

TrialStatus = Literal["complete", "failed", "not_applicable"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        complete: Trials of this run with a complete row.
        failed: Trials of this run that failed for good.
        total: Trials of this run.
        running: The items under way, named for people.
        items_left: Items that have not been submitted.
        retried: Items that failed and were submitted again.
        solved: Further trials whose results are stored. Their rows follow with the end of their bundle, when
            it is known what each has cost, or of their federation.
    """

    complete: int
    failed: int
    total: int
    running: tuple[str, ...]
    items_left: int
    retried: int = 0
    solved: int = 0

    @property
    def done(self) -> int:
        """Trials whose outcome is known."""
        return self.complete + self.failed


@dataclass(frozen=True)
class TrialDone:
    """A trial whose row is known.

    Attributes:
        trial_id: Which.
        status: Its outcome.
        dataset: Data set, or None for a recorded observation.
        defense: Defense.
        noise_budget: Its headline strength.
        attack: Attack.
        seed: The matrix's seed value.
        psnr_db: Median over the trial's images, or None.
        success_rate: Share of images at 20 dB and more, or None.
        attack_top1: Of a model's inversion, the share of images that the evaluator takes for the right class,
            or None.
        wall_s: Seconds that attacking and scoring took, or None.
        error: Why it failed, in one line, or None.
    """

    trial_id: str
    status: TrialStatus
    dataset: str | None
    defense: str
    noise_budget: float
    attack: str
    seed: int
    psnr_db: float | None
    success_rate: float | None
    attack_top1: float | None
    wall_s: float | None
    error: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> TrialDone:
        """Return what a row of `trials/` says."""
        return cls(
            trial_id=row["trial_id"],
            status=row["status"],
            dataset=row.get("dataset"),
            defense=row["defense"],
            noise_budget=row["noise_budget"],
            attack=row["attack"],
            seed=row["seed"],
            psnr_db=row.get("psnr_db_median"),
            success_rate=row.get("success_rate"),
            attack_top1=row.get("attack_top1"),
            wall_s=row.get("wall_s"),
            error=row.get("error"),
        )


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        complete: Trials that this run completed.
        failed: Trials that failed in it.
        not_applicable: Trials of the plan that have no meaning.
        remaining: Trials that were to run and have no row yet.
        interrupted: Whether the user asked it to stop.
        killed: Whether the user asked twice.
        wall_s: Seconds it took.
    """

    complete: int
    failed: int
    not_applicable: int
    remaining: int
    interrupted: bool
    killed: bool
    wall_s: float

    @property
    def exit_code(self) -> int:
        """0 complete, 1 at least one trial failed, 3 stopped before the end, 130 stopped at once."""
        if self.killed:
            return 130
        if self.failed:
            return 1
        return 3 if self.remaining else 0


class RunListener(Protocol):
    """Whoever watches a run; called from the run loop's thread, in order, never concurrently."""

    def started(self, total: int, lanes: int, description: str) -> None:
        """Hear how many trials there are and where they run."""

    def progress(self, progress: Progress) -> None:
        """Hear where the run stands; several times a second at most."""

    def trial(self, done: TrialDone) -> None:
        """Hear of a trial whose row is known."""

    def message(self, text: str) -> None:
        """Hear of something worth a line: a retry, a lost lane, a request to stop."""

    def finished(self, result: RunResult) -> None:
        """Hear the end."""
