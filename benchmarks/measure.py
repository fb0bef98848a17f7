"""Measuring a case: ours and the peer in turn, in one process, with one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from attacks.base import AttackTask
from attacks.engine.table import choose, table_digest
from benchmarks import figures, solvers
from benchmarks.cases import Case
from benchmarks.figures import Pair
from benchmarks.solvers import Answer, Peer

T = TypeVar("T")

BLOCKS = 4
"""How often our solver solves all tasks, between as many parts of the peer's."""
HEAT_SHARE = 10
"""The peer of a case is the faster one in this part of the iterations."""


class Stopping(NamedTuple):
    """What ending lanes early saves: the work is less, the rate is the same.

    Attributes:
        cpu_s_per_trial: CPU seconds per trial with every iteration done.
        stopping_cpu_s_per_trial: With the attack's own early stopping.
        success: Share of successes with every iteration done.
        stopping_success: With early stopping.
    """

    cpu_s_per_trial: float
    stopping_cpu_s_per_trial: float
    success: float
    stopping_success: float


@dataclass
class Measurement:
    """What was measured of a case.

    Attributes:
        case: The case.
        peer: Name of the peer.
        pairs: CPU seconds per trial, in turn.
        ours: Our answers by task index.
        peers: The peer's answers.
        sgemm: Floating-point operations per CPU second of a matrix product, sampled in between.
        stopping: What early stopping saves, where the attack has it.
    """

    case: Case
    peer: str
    pairs: list[Pair] = field(default_factory=list)
    ours: dict[int, Answer] = field(default_factory=dict)
    peers: dict[int, Answer] = field(default_factory=dict)
    sgemm: list[float] = field(default_factory=list)
    stopping: Stopping | None = None

    def row(self) -> dict[str, Any]:
        """Return the row of `attacks.parquet`."""
        qualities = [qualities_of(self.case, answers) for answers in (self.ours, self.peers)]
        ours = sum(pair.ours for pair in self.pairs) / len(self.pairs)
        peer = sum(pair.peer for pair in self.pairs) / len(self.pairs)
        ratio = figures.ratio(self.pairs)
        any_answer = next(iter(self.ours.values()))
        evaluations = sum(a.evaluations for a in self.ours.values()) / len(self.ours)
        work = figures.flops(any_answer.engine, mflop=self.case.alike.mflop, evaluations=round(evaluations))
        return {
            "model": self.case.name,
            "attack": self.case.attack,
            "engine": any_answer.engine,
            "lane_width": any_answer.lanes,
            "engine_table": table_digest(),
            "peer": self.peer,
            "size": self.case.size,
            "iterations": self.case.iterations,
            "trials": len(self.ours),
            "pairs": len(self.pairs),
            "cpu_s_per_trial": ours,
            "peer_cpu_s_per_trial": peer,
            "ratio_to_peer": ratio.value,
            "ratio_ci_low": ratio.low,
            "ratio_ci_high": ratio.high,
            "dpsnr_median": figures.difference_median(*qualities),
            "success_ours": figures.success_rate(qualities[0]),
            "success_peer": figures.success_rate(qualities[1]),
            "fraction_of_peak": work / ours / max(self.sgemm),
            "sgemm_gflops": max(self.sgemm) / 1e9,
        }


def measure(case: Case, *, peers: dict[str, Peer], blocks: int = BLOCKS) -> Measurement:
    """Measure a case.

    All tasks are solved by us together, `blocks` times, each time next to the peer's share of the same tasks:
    a block is a pair. A model that is attacked one task at a time is solved in the peer's shares.

    Args:
        case: The case.
        peers: By name; the fastest is the peer.
        blocks: See above; no more than there are trials.
    """
    width = choose(case.model, "cpu").lanes
    indices = range(-(-case.trials // width) * width)
    solvers.solve(case.attack, case.alike.tasks(indices[:width], case.scaled(iterations=1).config))
    name = _fastest(case, peers)
    measurement = Measurement(case, name)
    for part in split(indices, blocks):
        _measure_block(measurement, part if width == 1 else indices, part, peers[name])
    if case.stopping is not None:
        measurement.stopping = _stopping(case, len(indices))
    return measurement


def split(indices: Sequence[int], parts: int) -> list[Sequence[int]]:
    """Split into at most `parts` parts of about equal size, none of them empty."""
    parts = min(parts, len(indices))
    bounds = [len(indices) * part // parts for part in range(parts + 1)]
    return [indices[low:high] for low, high in pairwise(bounds)]


def qualities_of(case: Case, answers: dict[int, Answer]) -> list[float]:
    """Return the PSNR of each answer, in the order of the tasks."""
    return [
        figures.psnr_db(answer.images, case.alike.image(index)) for index, answer in sorted(answers.items())
    ]


def _measure_block(measurement: Measurement, ours: Sequence[int], theirs: Sequence[int], peer: Peer) -> None:
    """Let us solve the tasks `ours`, and the peer `theirs`."""
    case = measurement.case
    measurement.sgemm.append(figures.sgemm_flops())
    tasks = case.alike.tasks(ours, case.config)
    answers, seconds = timed(lambda: solvers.solve(case.attack, tasks))
    measurement.ours.update(zip(ours, answers, strict=True))
    tasks = case.alike.tasks(theirs, case.config)
    found, peer_seconds = timed(lambda: [peer(case.attack, task) for task in tasks])
    measurement.peers.update(zip(theirs, found, strict=True))
    measurement.pairs.append(Pair(seconds / len(ours), peer_seconds / len(theirs)))


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what `work` gives and the CPU seconds of this process that it took."""
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def _fastest(case: Case, peers: dict[str, Peer]) -> str:
    """Return the name of the peer that solves a shorter task fastest, of two turns each after a first one."""
    short = case.scaled(iterations=max(1, case.iterations // HEAT_SHARE))
    task: AttackTask[Any] = case.alike.task(0, short.config)
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(3 if len(peers) > 1 else 1):
        for name, peer in peers.items():
            seconds[name].append(timed(lambda peer=peer: peer(case.attack, task))[1])  # type: ignore[misc]
    return min(peers, key=lambda name: min(seconds[name][1:], default=0.0))


def _stopping(case: Case, trials: int) -> Stopping:
    found = []
    assert case.stopping is not None
    for config in (case.config, case.stopping):
        tasks = case.alike.tasks(range(trials), config)
        answers, seconds = timed(lambda tasks=tasks: solvers.solve(case.attack, tasks))  # type: ignore[misc]
        qualities = qualities_of(case, dict(enumerate(answers)))
        found.append((seconds / trials, figures.success_rate(qualities)))
    (full, success), (stopped, stopped_success) = found
    return Stopping(full, stopped, success, stopped_success)
