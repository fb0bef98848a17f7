"""The actor around a lane: it opens the lane, turns errors into data and measures; it decides nothing."""

from __future__ import annotations

import os
import pickle
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness.execute.executor import LaneSettings
from harness.execute.needs import unmet
from harness.execute.ray_preflight import Preflight
from harness.execute.work import Failure, FederationItem, Receipt, Usage, WorkItem

if TYPE_CHECKING:
    from fl.checkpoints import ChunkResult
    from harness.execute.federate import FederationState
    from harness.execute.lane import Lane


@dataclass(frozen=True)
class LaneOrder:
    """What lane to open.

    Attributes:
        lane_class: `module:class` of the lane.
        settings: What every lane is told.
        name: The lane's name.
        gpu: Whether Ray gives it a GPU.
        preflight: On a node's first lane, what the node must agree with; else None.
    """

    lane_class: str
    settings: LaneSettings
    name: str
    gpu: bool = False
    preflight: Preflight | None = None


@dataclass(frozen=True)
class Part:
    """A part of a federation that was computed, or not.

    Attributes:
        state: Where the federation stands, after a part done by its server.
        failure: Why nothing came of it, or None.
        usage: What it cost.
    """

    state: FederationState | None = None
    failure: Failure | None = None
    usage: Usage = field(default_factory=Usage)


class LaneProcess:
    """A process with one lane: a client of federations and a worker for all other items, or a server."""

    def __init__(self) -> None:
        self._lane: Lane
        self._sums: list[ChunkResult] = []

    def open(self, order: LaneOrder) -> Failure | None:
        """Make the lane, before which nothing else may be called; return why it cannot be made."""
        os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy and torch are imported
        if not order.gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray shows all GPUs to an actor that asked for none
        try:
            if order.preflight is not None:
                order.preflight.check()
            module, _, name = order.lane_class.partition(":")
            self._lane = getattr(import_module(module), name)(order.settings, order.name, gpu=order.gpu)
            if order.preflight is not None:
                self._lane.probe()
        except Exception as error:
            return _described(error)
        _ship_tensors_as_arrays()
        return None

    def find(self, needs: bytes) -> Failure | None:
        """Look for what trials read from disk; return what is missing here.

        Args:
            needs: Pickled `Need`s, which code of another version might not even read.
        """
        try:
            lacking = unmet(pickle.loads(needs))
        except Exception as error:
            return _described(error)
        return Failure("exception", "; ".join(lacking)) if lacking else None

    def run(self, item: WorkItem) -> Receipt:
        """Compute a whole item."""
        return self._lane.run(item)

    def train_chunk(self, item: FederationItem, round: int, chunk: int) -> tuple[Part, ChunkResult | None]:
        """Train one chunk of a round's participants.

        Returns:
            The report for the driver and the sum for the server; Ray keeps the two apart.
        """
        result, failure, usage = _measured(lambda: self._lane.train_chunk(item, round, chunk))
        return Part(failure=failure, usage=usage), result

    def begin(self, item: FederationItem) -> Part:
        """Serve a federation from its latest checkpoint on; sums collected before are void."""
        self._sums = []
        return Part(*_measured(lambda: self._lane.begin_federation(item)))

    def collect(self, result: ChunkResult) -> None:
        """Keep a chunk's sum until the round ends."""
        self._sums.append(result)

    def finish(self, item: FederationItem, round: int) -> Part:
        """End the round with the sums collected."""
        sums, self._sums = self._sums, []
        return Part(*_measured(lambda: self._lane.finish_round(item, round, sums)))


def _measured(step: Callable[[], Any]) -> tuple[Any, Failure | None, Usage]:
    """Return what a step gave, or why it failed, and what it cost."""
    wall, cpu = time.perf_counter(), time.process_time()
    value, failure = None, None
    try:
        value = step()
    except Exception as error:
        failure = _described(error)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    usage = Usage(time.perf_counter() - wall, time.process_time() - cpu, peak_mem_mib=peak_mib)
    return value, failure, usage


def _described(error: Exception) -> Failure:
    from harness.execute.lane import describe  # imports torch, which a lane may do without until here

    return describe(error)


def _ship_tensors_as_arrays() -> None:
    """Have tensors travel as numpy arrays, whose bytes Ray shares instead of pickling them."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    from harness.execute.ray_cluster import ray

    ray.util.register_serializer(
        torch.Tensor, serializer=lambda tensor: tensor.detach().cpu().numpy(), deserializer=_to_tensor
    )


def _to_tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array.copy())  # what Ray shares is read-only
