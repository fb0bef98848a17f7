"""The run loop: submit what is ready, learn from receipts, commit rows; the only writer of tables.

It imports neither torch nor ray. Whatever it holds in memory can be lost: finished work lies in the artifact
store, and the next run commits artifacts that have no row yet without computing them again.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.execute.events import Progress, RunListener, RunResult, TrialDone
from harness.execute.ledger import Ledger
from harness.execute.naming import difference, named
from harness.execute.rows import RowMaker
from harness.execute.schedule import LimitsOf, Schedule
from harness.execute.signals import StopRequests
from harness.execute.stage_progress import percent_done
from harness.execute.work import BundleItem, Failure, FederationItem, StageItem, Trial, WorkItem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.execute.executor import Executor
    from harness.execute.feed import Feed
    from harness.execute.work import Receipt
    from harness.store.experiment import Experiment, TrialRows

log = logging.getLogger(__name__)

COMMIT_EVERY_S = 5.0
COMMIT_ROWS = 64
POLL_S = 0.25
LOOK_EVERY_S = 1.0
LOOK_SHARE = 0.02
"""The most of its time that the run loop looks for results of running bundles."""


@dataclass(frozen=True)
class RunOptions:
    """What a user can ask of a run.

    Attributes:
        limits: Resources and time limits by plug-in.
        max_failures: Stop submitting once more trials than this have failed; None for no limit.
        device: Type of device that attacks are expected on, by which bundles are cut.
    """

    limits: LimitsOf
    max_failures: int | None = None
    device: str = "cpu"


@dataclass
class _Counts:
    complete: int = 0
    failed: int = 0
    retried: int = 0


@dataclass
class RunLoop:
    """One run over the trials that have no complete row.

    Attributes:
        experiment: Where rows go; locked by the caller.
        executor: Where work happens; started by the caller.
        rows: Makes rows from artifacts.
        options: What the user asked for.
        listener: Who watches.
        feed: Who gives further trials, or None.
    """

    experiment: Experiment
    executor: Executor
    rows: RowMaker
    options: RunOptions
    listener: RunListener
    feed: Feed | None = None
    _ledger: Ledger = field(init=False)
    _counts: _Counts = field(default_factory=_Counts)
    _failures: dict[str, Failure] = field(default_factory=dict)
    _submitted: dict[str, WorkItem] = field(default_factory=dict)
    _waiting: dict[str, Trial] = field(default_factory=dict)
    _buffer: list[TrialRows] = field(default_factory=list)
    _news: list[TrialRows] = field(default_factory=list)
    _committed_at: float = field(default_factory=time.monotonic)
    _solved: set[str] = field(default_factory=set)
    _percents: dict[str, int] = field(default_factory=dict)
    _look_at: float = 0.0

    def run(self, trials: Sequence[Trial], *, skipped: int = 0, held_back: int = 0) -> RunResult:
        """Run `trials` to the end or to the user's stop.

        Args:
            trials: What has no complete row.
            skipped: Trials of the plan that are not applicable, for the totals.
            held_back: Trials that `--limit` left for another run; they remain.
        """
        began = time.monotonic()
        self._ledger = Ledger(self.options.device)
        self._waiting = {trial.trial_id: trial for trial in trials}
        lanes = self.executor.lanes() if trials else 1  # without work the executor was not started
        where = self.executor.describe() if trials else "nothing to run"
        self.listener.started(len(trials), lanes, where)
        self._settle(list(trials))
        schedule = Schedule(
            list(self._waiting.values()),
            lanes=lanes,
            limits=self.options.limits,
            attacked=self.rows.has_result,
            trained=self.rows.has_federation,
            device=self.options.device,
        )
        self.executor.watch(lambda: self._report(schedule))
        killed = False
        with StopRequests() as stop:
            try:
                self._loop(schedule, stop)
            except KeyboardInterrupt:
                killed = True
                self.executor.cancel_all()
                self._settle(self._under_way())
            self._commit()
        result = RunResult(
            complete=self._counts.complete,
            failed=self._counts.failed,
            not_applicable=skipped,
            remaining=len(self._waiting) + held_back,
            interrupted=stop.count > 0,
            killed=killed,
            wall_s=time.monotonic() - began,
        )
        self.listener.finished(result)
        return result

    def _loop(self, schedule: Schedule, stop: StopRequests) -> None:
        told = False
        while True:
            if stop.count and not told:
                self.listener.message("stopping: what runs is finished and stored; Ctrl-C again stops now")
                told = True
            going = not stop.count and not self._sinking()
            self._feed(schedule, going=going)
            if going:
                while item := schedule.ready(self.executor.can_accept):
                    self._ledger.started(item)
                    self._submitted[item.item_id] = item
                    self.executor.submit(item)
            if not self.executor.running():
                return
            for receipt in self.executor.poll(POLL_S):
                self._receive(receipt, schedule)
            if time.monotonic() - self._committed_at > COMMIT_EVERY_S or len(self._buffer) >= COMMIT_ROWS:
                self._commit()
            self._report(schedule)

    def _receive(self, receipt: Receipt, schedule: Schedule) -> None:
        item = self._submitted.pop(receipt.item_id, None)
        if item is None:
            return
        if receipt.failure is not None:
            instead = self._ledger.after(item, receipt.failure)
            if instead:
                schedule.again(instead, like=item)
                self._counts.retried += 1
                how = difference(instead[0], item)
                self.listener.message(f"{named(item)}: {receipt.failure.error}; trying again{how}")
                return
            lost = schedule.drop_users(item)
            error = receipt.failure
            if not isinstance(item, BundleItem):
                error = Failure(error.kind, f"{named(item)}: {error.error}", error.traceback)
            self._failures.update({trial.trial_id: error for trial in lost})
            self._settle(lost)
            return
        schedule.finish(item)
        if isinstance(item, BundleItem):
            self._solved |= {trial.trial_id for trial in item.trials} - receipt.trial_failures.keys()
            self._failures.update(self._final(item, receipt, schedule))
            _log_solved(item, receipt, self._settle(item.trials))
        elif isinstance(item, FederationItem):
            if self.feed is not None:
                self.feed.trained(item.key, receipt.usage)
            self._settle(schedule.users(item))

    def _feed(self, schedule: Schedule, *, going: bool) -> None:
        """Tell the feed of what is stored, and take on what it asks for then."""
        while self.feed is not None and self._news:
            self._commit()
            news, self._news = self._news, []
            self.feed.heard(news)
            if going:
                new = list(self.feed.more())
                self._waiting.update({trial.trial_id: trial for trial in new})
                self._settle(new)
                schedule.add([trial for trial in new if trial.trial_id in self._waiting])

    def _final(self, item: BundleItem, receipt: Receipt, schedule: Schedule) -> dict[str, Failure]:
        """Queue the trials of a bundle that are to be tried again alone and return the other failures."""
        failures = dict(receipt.trial_failures)
        for alone in self._ledger.alone(item, failures):
            schedule.again([alone], like=item)
            failure = failures.pop(alone.trials[0].trial_id)
            self.listener.message(f"{named(alone)}: {failure.error}; trying again")
        return failures

    def _settle(self, trials: Sequence[Trial]) -> list[TrialRows]:
        """Turn every trial whose outcome is known into rows."""
        settled = []
        for trial in trials:
            if trial.trial_id not in self._waiting:
                continue
            attempts = self._ledger.attempts(trial)
            if failure := self._failures.get(trial.trial_id):
                rows = self.rows.failed(trial, failure, attempts=attempts)
                self._counts.failed += 1
            elif self.rows.available(trial):
                rows = self.rows.complete(trial, attempts=attempts)
                self._counts.complete += 1
            else:
                continue
            del self._waiting[trial.trial_id]
            settled.append(rows)
            self._buffer.append(rows)
            if self.feed is not None:
                self._news.append(rows)
            self.listener.trial(TrialDone.of(rows.trial))
        return settled

    def _commit(self) -> None:
        if self._buffer:
            self.experiment.commit(self._buffer)
            self.experiment.compact_if_needed()
            self._buffer = []
        self._committed_at = time.monotonic()

    def _sinking(self) -> bool:
        limit = self.options.max_failures
        return limit is not None and self._counts.failed > limit

    def _under_way(self) -> list[Trial]:
        """Return the trials of the bundles that were submitted and gave no receipt."""
        bundles = (item for item in self._submitted.values() if isinstance(item, BundleItem))
        return [trial for bundle in bundles for trial in bundle.trials if trial.trial_id in self._waiting]

    def _look(self) -> None:
        """Note which trials are solved and how far stages are, but not too often: the store may be far."""
        began = time.monotonic()
        if began < self._look_at:
            return
        unknown = [trial for trial in self._under_way() if trial.trial_id not in self._solved]
        self._solved |= {trial.trial_id for trial in unknown if self.rows.has_result(trial)}
        stages = [item for item in self._submitted.values() if isinstance(item, StageItem)]
        self._percents = {item.item_id: percent_done(self.rows.store, item.request) for item in stages}
        ended = time.monotonic()
        self._look_at = ended + max(LOOK_EVERY_S, (ended - began) / LOOK_SHARE)

    def _told(self, item: WorkItem) -> str:
        percent = self._percents.get(item.item_id)
        return named(item) + (f", {percent} %" if percent else "")

    def _report(self, schedule: Schedule) -> None:
        self._look()
        self._solved &= self._waiting.keys()
        self.listener.progress(
            Progress(
                complete=self._counts.complete,
                failed=self._counts.failed,
                total=self._counts.complete + self._counts.failed + len(self._waiting),
                running=tuple(self._told(item) for item in self._submitted.values()),
                items_left=schedule.remaining(),
                retried=self._counts.retried,
                solved=len(self._solved),
            )
        )


def _log_solved(item: BundleItem, receipt: Receipt, solved: Sequence[TrialRows]) -> None:
    """Log how a bundle was solved (`bench run -v`)."""
    keys = ("engine", "lane_width", "engine_table")
    found = {tuple(rows.trial.get(key) for key in keys) for rows in solved if rows.trial.get("engine")}
    for engine, width, table in sorted(found, key=str):
        log.info(
            "%s: solved by %s, %s side by side, table %s; %.1f CPU-s on %s",
            *(named(item), engine, width, table or "not used", receipt.usage.cpu_s, receipt.lane),
        )
