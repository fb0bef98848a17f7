"""What nodes have and how many lanes fit on them; plain arithmetic, no ray."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fl.cards import Resources

_ROUNDING = 1e-9


@dataclass(frozen=True)
class LaneShape:
    """What a lane reserves of its node: CPU cores, or a share of one GPU (and then no core).

    Attributes:
        cpus: CPU cores.
        gpus: Fraction of one GPU.
    """

    cpus: float = 1.0
    gpus: float = 0.0


SERVER = LaneShape(cpus=0.0)
"""A federation's server reserves nothing: it works while its clients wait, so it can never lock them out."""


@dataclass(frozen=True)
class Node:
    """A node that is alive.

    Attributes:
        node_id: Ray's name for it.
        host: Its host name, for people.
        cpus: CPU cores that Ray may give out.
        gpus: GPUs that Ray may give out.
        memory_mib: Memory in MiB.
    """

    node_id: str
    host: str
    cpus: float
    gpus: float = 0.0
    memory_mib: float = math.inf


def alive_nodes(listing: Iterable[Mapping[str, Any]]) -> dict[str, Node]:
    """Return the nodes of `ray.nodes()` that are alive and have at least one core to give, by id."""
    nodes = (_node(entry) for entry in listing if entry["Alive"])
    return {node.node_id: node for node in nodes if node.cpus >= 1}


def _node(entry: Mapping[str, Any]) -> Node:
    resources = entry["Resources"]
    return Node(
        node_id=entry["NodeID"],
        host=entry["NodeManagerHostname"],
        cpus=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        memory_mib=resources.get("memory", math.inf) / 2**20,
    )


def lane_shape(resources: Resources, *, gpu: bool) -> LaneShape:
    """Return the lane that an item needs; `gpu` says whether a GPU is to be had."""
    if gpu and resources.gpus > 0:
        return LaneShape(cpus=0.0, gpus=min(resources.gpus, 1.0))
    return LaneShape(cpus=resources.cpus if resources.cpus > 0 else 1.0)


def room(node: Node, held: Iterable[LaneShape], shape: LaneShape) -> int:
    """Return how many more lanes of a shape fit on a node beside the ones it holds.

    A GPU lane never spans devices, and lanes of different shares are kept on different devices.
    """
    if shape.gpus > 0:
        counts = Counter(lane.gpus for lane in held if lane.gpus > 0)
        same = counts.pop(shape.gpus, 0)
        taken = sum(math.ceil(count / _per_gpu(share)) for share, count in counts.items())
        return max(0, (int(node.gpus) - taken) * _per_gpu(shape.gpus) - same)
    free = node.cpus - sum(lane.cpus for lane in held)
    return max(0, math.floor(free / shape.cpus + _ROUNDING))


def _per_gpu(share: float) -> int:
    return math.floor(1 / share + _ROUNDING)
