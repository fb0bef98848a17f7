"""Getting jobs onto lanes: checks new nodes, opens lanes, keeps time limits, passes on what came of jobs."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from fl.cards import Resources
from fl.errors import StoreError
from harness.execute.ray_lanes import Job, LaneHandle, LanePool
from harness.execute.ray_nodes import LaneShape, Node, lane_shape
from harness.execute.work import BundleItem, Failure, Receipt, WorkItem

if TYPE_CHECKING:
    from harness.execute.executor import DeviceChoice
    from harness.execute.ray_calls import Answer, Calls
    from harness.execute.ray_federation import FederationRun
    from harness.execute.ray_preflight import Preflight

START_TIMEOUT_S = 180.0
"""Until a lane has opened: it imports torch, which takes a minute on a crowded machine."""
GRACE_S = 5.0
"""Lanes end by themselves what takes too long; one that does not is killed this much later."""
FALSE_STARTS = 3
"""How many lanes may die before they begin a job, until the job is held to be the cause."""
CPU = LaneShape()

_log = logging.getLogger(__name__)


class Dispatcher:
    """The queue in front of a pool of lanes.

    Args:
        calls: Where outstanding calls are kept.
        pool: The lanes.
        device: What the user chose.
        preflight: Gives what a new node must agree with.
        finished: Takes the receipts of whole items; chunks report to their federation.

    Attributes:
        needs: What a new node must have on its disk, `Need`s as `LaneProcess.find` takes them.
        refusals: Why nodes get no work.
    """

    def __init__(
        self,
        calls: Calls,
        pool: LanePool,
        *,
        device: DeviceChoice,
        preflight: Callable[[], Preflight],
        finished: Callable[[Receipt], None],
    ) -> None:
        self.needs = pickle.dumps(())
        self.refusals: list[str] = []
        self._calls = calls
        self._pool = pool
        self._device = device
        self._preflight = preflight
        self._finished = finished
        self._queue: list[Job] = []

    @property
    def looking(self) -> bool:
        """Whether a new node looks through its disk, which takes as long as it takes."""
        return any(lane.state == "busy" and lane.job is None for lane in self._pool.lanes())

    def accepts(self, item: WorkItem) -> bool:
        """Whether `item` would get a lane now."""
        return not self._queue and self._pool.find(Job(item), self.shape(item.resources)) is not None

    def shape(self, resources: Resources) -> LaneShape:
        """Return the lane to ask for: with a GPU if the work can use one and a node has one."""
        with_gpu = lane_shape(resources, gpu=self._device != "cpu")
        return with_gpu if self._pool.capacity(with_gpu) else lane_shape(resources, gpu=False)

    def put(self, job: Job) -> None:
        """Queue a job."""
        self._queue.append(job)

    def withdraw(self, run: FederationRun, *, kill: bool) -> None:
        """Drop a federation's queued chunks, and on request the lanes that are training some."""
        self._queue = [job for job in self._queue if not (job.chunk and job.chunk.run is run)]
        for lane in self._pool.lanes():
            if kill and lane.job and lane.job.chunk and lane.job.chunk.run is run:
                self._drop(lane)

    def clear(self) -> None:
        """Forget all queued jobs."""
        self._queue.clear()

    def reconcile(self) -> list[LaneHandle]:
        """Follow the nodes that came and went; return the servers that went with theirs."""
        gone = self._pool.reconcile()
        for lane in gone:
            self._calls.forget(lane.call)
            if lane.job is not None:
                self._failed(lane, lane.job, Failure("killed", f"its node {lane.node.host} is gone"))
        for node in self._pool.in_standing("unknown"):
            if not self._pool.blocked(node, CPU):
                self._check(node)
        return [lane for lane in gone if lane.is_server]

    def place(self) -> None:
        """Give queued jobs their lanes, as far as there are any."""
        waiting, self._queue = self._queue, []
        for job in waiting:
            shape = self.shape(job.item.resources)
            if refusal := self._refusal(job.item, shape):
                self._failed(None, job, refusal)
            elif placement := self._pool.find(job, shape):
                for idle in placement.evict:
                    self._pool.discard(idle)
                lane = placement.lane or self._start(placement.node, shape)
                lane.job = job
                if lane.state == "idle":
                    self._begin(lane)
            else:
                self._queue.append(job)

    def expire(self) -> None:
        """End lanes that take too long to open or to finish an item."""
        now = time.monotonic()
        for lane in self._pool.lanes():
            limit = START_TIMEOUT_S if lane.state == "starting" else _limit(lane)
            if limit is None or now - lane.since <= limit:
                continue
            job = lane.job
            self._drop(lane)
            if lane.state == "starting":
                self._pool.block(lane.node, lane.shape)
                _log.warning("%s did not start within %g s", lane.name, START_TIMEOUT_S)
                if job is not None:
                    self._queue.insert(0, job)
                else:  # it was its node's first
                    self._pool.settle(lane.node, "unknown")
            elif job is not None:
                self._failed(lane, job, Failure("timeout", f"no result within {limit - GRACE_S:g} s"))

    def _start(self, node: Node, shape: LaneShape) -> LaneHandle:
        lane = self._pool.start(node, shape)
        self._calls.expect(lane.call, partial(self._opened, lane))
        return lane

    def _check(self, node: Node) -> None:
        try:
            preflight = self._preflight()
        except StoreError as error:
            _log.warning("node %s has to wait: %s", node.host, error)
            self._pool.block(node, CPU)
            return
        self._pool.settle(node, "checking")
        lane = self._pool.start(node, CPU, preflight)
        self._calls.expect(lane.call, partial(self._checked, lane))

    def _checked(self, lane: LaneHandle, answer: Answer) -> None:
        failure: Failure | None = answer.failure or answer.value
        if failure is not None:
            self._refuse(lane, failure, answer)
            return
        lane.turn("busy", lane.actor.find.remote(self.needs))
        self._calls.expect(lane.call, partial(self._found, lane))

    def _found(self, lane: LaneHandle, answer: Answer) -> None:
        failure: Failure | None = answer.failure or answer.value
        if failure is not None:
            self._refuse(lane, failure, answer)
            return
        lane.turn("idle")
        self._pool.settle(lane.node, "usable")

    def _refuse(self, lane: LaneHandle, failure: Failure, answer: Answer) -> None:
        self._pool.discard(lane)
        if answer.lost:
            self._pool.block(lane.node, CPU)
            self._pool.settle(lane.node, "unknown")
            return
        self._pool.settle(lane.node, "refused")
        self.refusals.append(f"node {lane.node.host}: {failure.error}")
        _log.warning("no work for node %s: %s", lane.node.host, failure.error)

    def _opened(self, lane: LaneHandle, answer: Answer) -> None:
        job, failure = lane.job, answer.failure or answer.value
        assert job is not None
        if failure is None:
            lane.turn("idle")
            self._begin(lane)
            return
        self._pool.discard(lane)
        job.false_starts += 1
        if answer.lost and job.false_starts < FALSE_STARTS:
            self._queue.insert(0, job)
        else:
            self._failed(lane, job, failure)

    def _begin(self, lane: LaneHandle) -> None:
        job = lane.job
        assert job is not None
        if job.chunk is None:
            lane.turn("busy", lane.actor.run.remote(job.item))
            self._calls.expect(lane.call, partial(self._ran, lane, job))
            return
        train = lane.actor.train_chunk.options(num_returns=2)
        report, result = train.remote(job.item, job.chunk.round, job.chunk.index)
        lane.turn("busy", report)
        self._calls.expect(report, partial(self._trained, lane, job, result))

    def _ran(self, lane: LaneHandle, job: Job, answer: Answer) -> None:
        if answer.failure is not None:
            self._free(lane, spent=answer.lost)
            self._failed(lane, job, answer.failure)
            return
        receipt: Receipt = answer.value
        self._free(lane, spent=_spent(receipt))
        self._finished(receipt)

    def _trained(self, lane: LaneHandle, job: Job, result: Any, answer: Answer) -> None:
        assert job.chunk is not None
        self._free(lane, spent=answer.lost)
        if answer.failure is not None:
            self._failed(lane, job, answer.failure)
        else:
            job.chunk.run.trained(job.chunk, answer.value, result)

    def _free(self, lane: LaneHandle, *, spent: bool) -> None:
        lane.job = None
        if spent:
            self._pool.discard(lane)
        else:
            lane.turn("idle")

    def _drop(self, lane: LaneHandle) -> None:
        self._calls.forget(lane.call)
        self._pool.discard(lane)

    def _failed(self, lane: LaneHandle | None, job: Job, failure: Failure) -> None:
        if job.chunk is not None:
            job.chunk.run.untrained(job.chunk, failure)
        else:
            self._finished(Receipt(job.item.item_id, failure, lane=lane.name if lane else ""))

    def _refusal(self, item: WorkItem, shape: LaneShape) -> Failure | None:
        """Return why no node will ever take an item; while there is no node at all, it waits for one."""
        nodes = self._pool.usable()
        if not nodes:
            return None
        if self._device == "cuda" and item.resources.gpus > 0 and shape.gpus == 0:
            return Failure("device", "expected a node with a GPU (--device cuda), got none")
        if self._pool.capacity(shape) == 0:
            most = max(node.cpus for node in nodes)
            return Failure(
                "exception", f"expected a node with {shape.cpus:g} CPUs (`resources:`), got {most:g} at most"
            )
        return None


def time_limit(item: WorkItem) -> float | None:
    """Return how many seconds an item may take before its lane is killed; a bundle's limit is per trial."""
    if item.timeout_s is None:
        return None
    trials = len(item.trials) if isinstance(item, BundleItem) else 1
    return item.timeout_s * trials + GRACE_S


def _limit(lane: LaneHandle) -> float | None:
    """A chunk has no limit of its own: its federation has."""
    whole = lane.state == "busy" and lane.job is not None and lane.job.chunk is None
    return time_limit(lane.job.item) if whole and lane.job else None


def _spent(receipt: Receipt) -> bool:
    """Whether the process that gave a receipt cannot be trusted with more: memory or GPU is spoilt."""
    failures = [receipt.failure, *receipt.trial_failures.values()]
    return any(f is not None and (f.kind == "out_of_memory" or "CUDA error" in f.error) for f in failures)
