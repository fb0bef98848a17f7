"""The lanes that there are, on which nodes, and where the next job may go."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from harness.execute.ray_cluster import ray
from harness.execute.ray_nodes import SERVER, LaneShape, Node, alive_nodes, room
from harness.execute.ray_process import LaneOrder, LaneProcess

if TYPE_CHECKING:
    from harness.execute.executor import LaneSettings
    from harness.execute.ray_federation import Chunk
    from harness.execute.ray_preflight import Preflight
    from harness.execute.work import WorkItem

RETRY_AFTER_S = 30.0

Standing = Literal["unknown", "checking", "usable", "refused"]


@dataclass(eq=False)
class Job:
    """Something for one lane to do.

    Attributes:
        item: The item, or the federation that a chunk belongs to.
        chunk: Which chunk, or None for the whole item.
        false_starts: How many lanes died before they could begin it.
    """

    item: WorkItem
    chunk: Chunk | None = None
    false_starts: int = 0


@dataclass(eq=False)
class LaneHandle:
    """A lane as the driver sees it.

    Attributes:
        name: Its name, for people.
        node: Where it is.
        shape: What it reserves.
        actor: The actor.
        state: `starting` until it has opened, then `idle` or `busy`.
        since: Since when, on the monotonic clock.
        job: What it does, or will do once it has opened.
        call: The outstanding call, if any.
    """

    name: str
    node: Node
    shape: LaneShape
    actor: Any
    state: Literal["starting", "idle", "busy"] = "starting"
    since: float = field(default_factory=time.monotonic)
    job: Job | None = None
    call: Any = None

    @property
    def is_server(self) -> bool:
        """Whether it serves federations and takes no jobs."""
        return self.shape == SERVER

    def turn(self, state: Literal["idle", "busy"], call: Any = None) -> None:
        """Begin something else."""
        self.state, self.call, self.since = state, call, time.monotonic()

    def kill(self) -> None:
        """End the process, whatever it does."""
        ray.kill(self.actor, no_restart=True)


class Placement(NamedTuple):
    """Where a job can go: to an idle lane, or to a new one once others have made room.

    Attributes:
        node: The node.
        lane: The idle lane, or None for a new one.
        evict: Idle lanes of other shapes that must go first.
    """

    node: Node
    lane: LaneHandle | None
    evict: tuple[LaneHandle, ...] = ()


class LanePool:
    """All nodes, lanes and servers of one executor.

    Args:
        lane_class: `module:class` of the lanes.
        settings: What every lane is told.

    Attributes:
        stale: Whether a lane went since the nodes were last looked at, perhaps with its node.
    """

    def __init__(self, lane_class: str, settings: LaneSettings) -> None:
        self._lane_class = lane_class
        self._settings = settings
        self.stale = True
        self._nodes: dict[str, Node] = {}
        self._standings: dict[str, Standing] = {}
        self._blocked: dict[tuple[str, LaneShape], float] = {}
        self._lanes: list[LaneHandle] = []
        self._servers: list[LaneHandle] = []
        self._numbers = count(1)
        self._actor_class: Any = ray.remote(LaneProcess)

    def reconcile(self) -> list[LaneHandle]:
        """Learn which nodes came and went; return the lanes and servers that went with theirs."""
        self._nodes = alive_nodes(ray.nodes())  # type: ignore[no-untyped-call]
        self._standings = {node_id: self._standings.get(node_id, "unknown") for node_id in self._nodes}
        gone = [lane for lane in (*self._lanes, *self._servers) if lane.node.node_id not in self._nodes]
        for lane in gone:
            self.discard(lane)
        self.stale = False
        return gone

    def settle(self, node: Node, standing: Standing) -> None:
        """Note what is now known of a node."""
        if node.node_id in self._nodes:
            self._standings[node.node_id] = standing

    def in_standing(self, *standings: Standing) -> list[Node]:
        """Return the nodes in one of these standings."""
        return [node for node_id, node in self._nodes.items() if self._standings[node_id] in standings]

    def usable(self) -> list[Node]:
        """Return the nodes that passed their check, the least loaded first."""
        return sorted(
            self.in_standing("usable"), key=lambda node: sum(lane.job is not None for lane in self._on(node))
        )

    def block(self, node: Node, shape: LaneShape) -> None:
        """Start no lanes of this shape on a node for a while: something else holds what they need."""
        self._blocked[node.node_id, shape] = time.monotonic() + RETRY_AFTER_S

    def blocked(self, node: Node, shape: LaneShape) -> bool:
        """Whether a lane of this shape had no chance on the node just now."""
        return self._blocked.get((node.node_id, shape), 0.0) > time.monotonic()

    def capacity(self, shape: LaneShape) -> int:
        """Return how many lanes of a shape the usable nodes could hold, were they empty."""
        return sum(room(node, (), shape) for node in self.usable())

    def find(self, job: Job, shape: LaneShape) -> Placement | None:
        """Return where a job can go now: an idle lane, else free room, else room that idle lanes can make."""
        nodes = [node for node in self.usable() if self._has_memory(node, job)]
        for node in nodes:
            for lane in self._on(node):
                if lane.state == "idle" and lane.shape == shape:
                    return Placement(node, lane)
        nodes = [node for node in nodes if not self.blocked(node, shape)]
        for node in nodes:
            if room(node, [lane.shape for lane in self._on(node)], shape):
                return Placement(node, None)
        for node in nodes:
            kept = [lane.shape for lane in self._on(node) if lane.state != "idle"]
            if room(node, kept, shape):
                return Placement(node, None, tuple(lane for lane in self._on(node) if lane.state == "idle"))
        return None

    def start(self, node: Node, shape: LaneShape, preflight: Preflight | None = None) -> LaneHandle:
        """Start a lane; its call answers once it has opened."""
        lane = self._new(node, shape, "lane", preflight)
        self._lanes.append(lane)
        return lane

    def take_server(self) -> LaneHandle | None:
        """Return an idle server, or a new one (its call answers once it has opened); None without a node."""
        for server in self._servers:
            if server.state == "idle":
                server.turn("busy")
                return server
        nodes = self.usable()
        if not nodes:
            return None
        server = self._new(nodes[0], SERVER, "server")
        self._servers.append(server)
        return server

    def lanes(self) -> list[LaneHandle]:
        """Return all lanes, without servers."""
        return list(self._lanes)

    def discard(self, lane: LaneHandle) -> None:
        """End a lane or server."""
        self.stale = True
        lane.kill()
        for group in (self._lanes, self._servers):
            if lane in group:
                group.remove(lane)

    def clear(self) -> None:
        """End all lanes and servers."""
        for lane in (*self._lanes, *self._servers):
            lane.kill()
        self._lanes, self._servers = [], []

    def _on(self, node: Node) -> list[LaneHandle]:
        return [lane for lane in self._lanes if lane.node.node_id == node.node_id]

    def _has_memory(self, node: Node, job: Job) -> bool:
        """Whether a node has memory for a job; one that is alone on its node may always try."""
        used = [lane.job.item.resources.memory_mib for lane in self._on(node) if lane.job is not None]
        return not used or sum(used) + job.item.resources.memory_mib <= node.memory_mib

    def _new(self, node: Node, shape: LaneShape, role: str, preflight: Preflight | None = None) -> LaneHandle:
        name = f"{role}-{next(self._numbers)}@{node.host}"
        affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        actor = self._actor_class.options(
            num_cpus=shape.cpus,
            num_gpus=shape.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=affinity,
        ).remote()
        gpu = shape.gpus > 0
        settings = self._settings if gpu else replace(self._settings, device="cpu")
        order = LaneOrder(self._lane_class, settings, name, gpu=gpu, preflight=preflight)
        return LaneHandle(name, node, shape, actor, call=actor.open.remote(order))
