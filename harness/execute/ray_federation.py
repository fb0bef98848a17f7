"""A federation spread over actors: a server that holds it, and lanes that train its chunks.

Chunks are dispatched to lanes like all other work, so any number of federations shares any number of lanes
and none waits for a gang. A chunk's sum goes from its lane to the server without passing through the driver.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from harness.execute.work import Failure, FederationItem, Receipt, Usage

if TYPE_CHECKING:
    from harness.execute.federate import FederationState
    from harness.execute.ray_calls import Answer, Calls
    from harness.execute.ray_lanes import LaneHandle
    from harness.execute.ray_process import Part

ATTEMPTS = 3
"""How many lanes may die over one chunk, and how many servers over one round, before the federation fails."""


@dataclass(frozen=True)
class Chunk:
    """One chunk to train.

    Attributes:
        run: The federation.
        tenure: Which of its servers wants it; what an earlier one wanted is void.
        round: The round.
        index: The chunk's index.
    """

    run: FederationRun
    tenure: int
    round: int
    index: int


class Host(Protocol):
    """What a federation needs of the executor."""

    calls: Calls

    def hire_server(self, run: FederationRun) -> None:
        """Give the federation a server, by calling its `serve` once there is one."""

    def queue_chunk(self, chunk: Chunk) -> None:
        """Have a lane train a chunk, and the answer handed to `trained` or `untrained`."""

    def ended(self, run: FederationRun, receipt: Receipt) -> None:
        """Take the receipt."""


class FederationRun:
    """The course of one federation."""

    def __init__(self, item: FederationItem, host: Host) -> None:
        self.item = item
        self.began = time.monotonic()
        self.server: LaneHandle | None = None
        self.tenure = 0
        self._host = host
        self._usage = Usage()
        self._round = -1
        self._missing: set[int] = set()
        self._lanes_lost: Counter[int] = Counter()
        self._servers_lost = 0

    def start(self) -> None:
        """Ask for a server."""
        self._host.hire_server(self)

    def serve(self, server: LaneHandle) -> None:
        """Begin, or go on after the latest checkpoint, with this server."""
        self.server = server
        self._ask(server.actor.begin.remote(self.item), self._stepped)

    def server_lost(self, failure: Failure) -> None:
        """Go on with another server."""
        self.tenure += 1
        self.server = None
        self._servers_lost += 1
        if self._servers_lost >= ATTEMPTS:
            self.stop(failure)
        else:
            self._host.hire_server(self)

    def trained(self, chunk: Chunk, part: Part, result: Any) -> None:
        """Pass a chunk's sum, by reference, on to the server."""
        if chunk.tenure != self.tenure:
            return
        self._add(part.usage)
        if part.failure is not None:
            self.stop(part.failure)
            return
        assert self.server is not None
        self._ask(self.server.actor.collect.remote(result), partial(self._collected, chunk))

    def untrained(self, chunk: Chunk, failure: Failure) -> None:
        """Have a chunk trained again from the same checkpoint: its lane, or its sum, is lost."""
        if chunk.tenure != self.tenure:
            return
        self._lanes_lost[chunk.index] += 1
        if self._lanes_lost[chunk.index] >= ATTEMPTS:
            self.stop(failure)
        else:
            self._host.queue_chunk(chunk)

    def stop(self, failure: Failure | None) -> None:
        """End here, finished or failed; what is still under way for it is void."""
        usage = Usage(time.monotonic() - self.began, self._usage.cpu_s, 0.0, self._usage.peak_mem_mib)
        name = self.server.name if self.server is not None else ""
        self.tenure += 1
        self._host.ended(self, Receipt(self.item.item_id, failure, usage=usage, lane=name))

    def _ask(self, call: Any, then: Any) -> None:
        """Expect the answer to a call to the server, unless that server is lost by then."""
        self._host.calls.expect(call, partial(self._answered, self.tenure, then))

    def _answered(self, tenure: int, then: Any, answer: Answer) -> None:
        if tenure != self.tenure:
            return
        if answer.lost:
            assert answer.failure is not None
            self.server_lost(answer.failure)
        else:
            then(answer)

    def _stepped(self, answer: Answer) -> None:
        if answer.failure is not None:
            self.stop(answer.failure)
            return
        part: Part = answer.value
        self._add(part.usage)
        if part.failure is not None:
            self.stop(part.failure)
            return
        assert part.state is not None
        if part.state.done:
            self.stop(None)
        else:
            self._train(part.state)

    def _train(self, state: FederationState) -> None:
        if state.round != self._round:
            self._lanes_lost.clear()
            self._servers_lost = 0
        self._round = state.round
        self._missing = set(state.chunks)
        for index in state.chunks:
            self._host.queue_chunk(Chunk(self, self.tenure, state.round, index))

    def _collected(self, chunk: Chunk, answer: Answer) -> None:
        if answer.failure is not None:
            self.untrained(chunk, answer.failure)
            return
        self._missing.remove(chunk.index)
        if not self._missing:
            assert self.server is not None
            self._ask(self.server.actor.finish.remote(self.item, self._round), self._stepped)

    def _add(self, usage: Usage) -> None:
        self._usage = Usage(
            cpu_s=self._usage.cpu_s + usage.cpu_s,
            peak_mem_mib=max(self._usage.peak_mem_mib, usage.peak_mem_mib),
        )
