"""The Ray executor: items run on lanes, one process each, on this machine or on a cluster's nodes.

It decides nothing about retries of items: whatever happens to one, also the death of its lane or node,
becomes its receipt. Ray's own retries and restarts are off.
"""

from __future__ import annotations

import math
import pickle
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fl.errors import StoreError, UsageError
from harness.execute.needs import needs_of
from harness.execute.ray_calls import Calls
from harness.execute.ray_cluster import Connection, RayOptions, connect
from harness.execute.ray_dispatch import CPU, START_TIMEOUT_S, Dispatcher, time_limit
from harness.execute.ray_federation import Chunk, FederationRun
from harness.execute.ray_lanes import Job, LaneHandle, LanePool
from harness.execute.ray_nodes import LaneShape
from harness.execute.ray_preflight import Preflight, StoreMarks, environment
from harness.execute.work import Failure, FederationItem, Receipt, WorkItem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fl.specs import TrialSpec
    from harness.execute.executor import LaneSettings
    from harness.execute.ray_calls import Answer

LANE = "harness.execute.lane:Lane"
RECONCILE_S = 1.0
STEP_S = 0.25
WHOLE_GPU = LaneShape(cpus=0.0, gpus=1.0)


class RayExecutor:
    """Runs items on the lanes of a private Ray or of a cluster.

    Args:
        settings: What every lane is told.
        address: What Ray to use; see `RayOptions`.
        workers: For a private Ray, how many lanes of one CPU; None for the machine's cores.
        gpus: For a private Ray, how many GPUs; None for those found.
        lane_class: `module:class` of the lanes.
    """

    def __init__(
        self,
        settings: LaneSettings,
        *,
        address: str | None = None,
        workers: int | None = None,
        gpus: int | None = None,
        lane_class: str = LANE,
    ) -> None:
        settings = _absolute(settings)
        self.calls = Calls()
        self._device = settings.device
        self._options = RayOptions(address, workers, gpus)
        self._marks = StoreMarks(settings)
        self._versions: dict[str, str] = {}
        self._connection: Connection | None = None
        self._pool = LanePool(lane_class, settings)
        self._dispatcher = Dispatcher(
            self.calls, self._pool, device=settings.device, preflight=self._preflight, finished=self._receipt
        )
        self._reconciled = -math.inf
        self._open: set[str] = set()
        self._receipts: list[Receipt] = []
        self._arrived: list[FederationItem] = []
        self._runs: list[FederationRun] = []
        self._unserved: list[FederationRun] = []

    def start(self, specs: Iterable[TrialSpec] = ()) -> None:
        """Start or join Ray and check every node that is there; nodes that join later are checked then.

        Args:
            specs: Trials to come, whose data sets, weights and other files every node must have.

        Raises:
            UsageError: If Ray cannot be reached, a node does not fit the driver or lacks files, or `cuda` has
                no GPU.
        """
        self._versions = environment()
        self._dispatcher.needs = pickle.dumps(needs_of(specs))
        self._connection = connect(self._options)
        try:
            self._marks.write()
            self._check_nodes()
        except BaseException:
            self.close()
            raise

    def lanes(self) -> int:
        """Return how many items can run at the same time, with one CPU or one GPU each."""
        return max(1, self._pool.capacity(CPU) + self._gpus())

    def describe(self) -> str:
        """Return one line for people, such as `2 lanes on 1 node (2 CPU)`."""
        nodes = self._pool.usable()
        devices = [f"{sum(node.cpus for node in nodes):g} CPU"]
        if self._gpus():
            devices.append(f"{self._gpus()} GPU")
        lanes, where = self.lanes(), f"{len(nodes)} node{'s' * (len(nodes) != 1)}"
        return f"{lanes} lane{'s' * (lanes != 1)} on {where} ({', '.join(devices)})"

    def can_accept(self, item: WorkItem) -> bool:
        """Whether a lane is free for `item`, or nothing runs at all (then it may wait for a node to come)."""
        if not self._open:
            return True
        if isinstance(item, FederationItem):
            return self._federations() < self.lanes() and self._dispatcher.accepts(item)
        return not self._arrived and self._dispatcher.accepts(item)

    def submit(self, item: WorkItem) -> None:
        """Start `item`; a federation at the next `poll`, once it is known how many are ready."""
        self._open.add(item.item_id)
        if isinstance(item, FederationItem):
            self._arrived.append(item)
        else:
            self._dispatcher.put(Job(item))
            self._dispatcher.place()

    def running(self) -> int:
        """Return how many submitted items have no receipt that `poll` returned."""
        return len(self._open)

    def watch(self, tick: Callable[[], None]) -> None:
        """Do nothing: `poll` keeps to its time."""

    def poll(self, timeout: float) -> list[Receipt]:
        """Return receipts of finished items, waiting up to `timeout` seconds for one."""
        deadline = time.monotonic() + timeout
        self._place_federations()
        self._step(0.0)
        while not self._receipts and (left := deadline - time.monotonic()) > 0:
            self._step(min(left, STEP_S))
        receipts, self._receipts = self._receipts, []
        self._open -= {receipt.item_id for receipt in receipts}
        return receipts

    def cancel_all(self) -> None:
        """Stop at once; what was running gives no receipt."""
        self.calls.clear()
        self._pool.clear()
        self._dispatcher.clear()
        for group in (self._receipts, self._arrived, self._runs, self._unserved):
            group.clear()
        self._open.clear()

    def close(self) -> None:
        """End all lanes; a private Ray ends with them."""
        if self._connection is None:
            return
        self.cancel_all()
        with suppress(StoreError):
            self._marks.remove()
        self._connection.close()
        self._connection = None

    def hire_server(self, run: FederationRun) -> None:
        """Give a federation a server, once a node can hold one."""
        self._unserved.append(run)

    def queue_chunk(self, chunk: Chunk) -> None:
        """Have a lane train a chunk."""
        self._dispatcher.put(Job(chunk.run.item, chunk))

    def ended(self, run: FederationRun, receipt: Receipt) -> None:
        """Take a federation's receipt; its server is free for the next one."""
        self._dispatcher.withdraw(run, kill=False)
        self._runs.remove(run)
        if run.server is not None:
            run.server.turn("idle")
        self._receipt(receipt)

    def _step(self, timeout: float) -> None:
        self._assign()
        self.calls.wait(timeout)
        self._assign()
        self._dispatcher.expire()
        self._expire()

    def _assign(self) -> None:
        """Hand out lanes and servers, on nodes that are still there."""
        now = time.monotonic()
        if self._pool.stale or now - self._reconciled >= RECONCILE_S:
            self._reconciled = now
            gone = self._dispatcher.reconcile()
            for run in list(self._runs):
                if run.server in gone:
                    run.server_lost(Failure("killed", "its server's node is gone"))
        self._dispatcher.place()
        unserved, self._unserved = self._unserved, []
        for run in unserved:
            if run in self._runs:
                self._serve(run)

    def _serve(self, run: FederationRun) -> None:
        server = self._pool.take_server()
        if server is None:
            self._unserved.append(run)
            return
        run.server = server
        if server.state == "starting":
            self.calls.expect(server.call, partial(self._server_opened, run, server))
        else:
            run.serve(server)

    def _expire(self) -> None:
        now = time.monotonic()
        for run in list(self._runs):
            limit, server = time_limit(run.item), run.server
            if limit is not None and now - run.began > limit:
                self._time_out(run)
            elif server and server.state == "starting" and now - server.since > START_TIMEOUT_S:
                self.calls.forget(server.call)
                self._pool.discard(server)
                run.server_lost(Failure("killed", f"no server started within {START_TIMEOUT_S:g} s"))

    def _time_out(self, run: FederationRun) -> None:
        self._dispatcher.withdraw(run, kill=True)
        if run.server is not None:
            self.calls.forget(run.server.call)
            self._pool.discard(run.server)
        run.stop(Failure("timeout", f"no result within {run.item.timeout_s:g} s"))

    def _place_federations(self) -> None:
        """Spread federations over lanes while there are fewer of them than lanes; else each gets one lane.

        A federation of one chunk gains nothing from a server, and one that may use a GPU stays on that GPU.
        """
        arrived, self._arrived = self._arrived, []
        many = self._federations() >= self.lanes()
        for item in arrived:
            spec = item.spec.federation
            assert spec is not None
            one_chunk = spec.clients <= spec.chunk
            if many or one_chunk or self._dispatcher.shape(item.resources).gpus:
                self._dispatcher.put(Job(item))
            else:
                run = FederationRun(item, self)
                self._runs.append(run)
                run.start()

    def _federations(self) -> int:
        return sum(item_id.startswith("federation-") for item_id in self._open)

    def _gpus(self) -> int:
        return 0 if self._device == "cpu" else self._pool.capacity(WHOLE_GPU)

    def _server_opened(self, run: FederationRun, server: LaneHandle, answer: Answer) -> None:
        failure: Failure | None = answer.failure or answer.value
        if failure is not None:
            self._pool.discard(server)
            run.server_lost(failure)
        else:
            server.turn("busy")
            run.serve(server)

    def _receipt(self, receipt: Receipt) -> None:
        self._receipts.append(receipt)

    def _preflight(self) -> Preflight:
        return Preflight(self._versions, self._marks.write())

    def _check_nodes(self) -> None:
        """Wait until every node is checked and one may be used."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._pool.usable() or self._pool.in_standing("checking"):
            self._step(STEP_S)
            if self._dispatcher.refusals:
                raise UsageError("\n".join(self._dispatcher.refusals))
            if time.monotonic() > deadline and not self._dispatcher.looking:
                break
        if not self._pool.usable():
            raise UsageError(
                f"expected a node of the Ray cluster to give one CPU within {START_TIMEOUT_S:g} s, got none; "
                "is it busy with other jobs? (`ray status`)"
            )
        if self._device == "cuda" and not self._gpus():
            raise UsageError("expected a node with a GPU (--device cuda), got none; use --device auto or cpu")


def _absolute(settings: LaneSettings) -> LaneSettings:
    """Return the settings with full paths: a lane on another node works in another folder."""
    artifacts, private = (
        uri if "://" in uri else str(Path(uri).expanduser().absolute())
        for uri in (settings.artifact_uri, settings.private_uri)
    )
    return replace(settings, artifact_uri=artifacts, private_uri=private)
