"""A lane: one process that computes work items, on one CPU core or one share of a GPU."""

from __future__ import annotations

import logging
import platform
import resource
import time
import traceback
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from attacks.engine.table import EngineTable, at_most, current, using
from fl.checkpoints import ChunkResult
from fl.errors import BenchError
from fl.memory import is_out_of_memory
from harness.execute.bundle import solve_bundle
from harness.execute.federate import FederationState, finish_round, run_federation, state_of, train_chunk
from harness.execute.materials import Materials
from harness.execute.memory import give_back_freed_memory, give_back_memory, keep_freed_memory
from harness.execute.schedule import lanes_of
from harness.execute.score import Scorer
from harness.execute.stage_progress import StageProgress
from harness.execute.work import (
    BundleItem,
    Failure,
    FailureKind,
    FederationItem,
    Receipt,
    StageItem,
    Usage,
    WorkItem,
)
from harness.store.artifacts import ArtifactStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.execute.executor import LaneSettings


_log = logging.getLogger(__name__)


class DeviceError(BenchError):
    """The device that a lane was given does not work; it never falls back to another."""


@dataclass(frozen=True)
class LaneInfo:
    """What a lane found out about itself at its start.

    Attributes:
        python: Minor version of Python.
        torch: Version of torch.
        device: Name of the device.
    """

    python: str
    torch: str
    device: str


class Lane:
    """Computes items one after the other; results go to the store, receipts to the caller."""

    def __init__(self, settings: LaneSettings, name: str, *, gpu: bool) -> None:
        """Set one thread and probe the device.

        Raises:
            DeviceError: If a GPU was given or demanded and does not work.
        """
        single_thread()
        self.name = name
        self.device = probe_device(gpu=gpu or settings.device == "cuda")
        text = settings.engine_table
        self._table = current() if text is None else EngineTable.parse(text)
        self._store = ArtifactStore(settings.artifact_uri)
        self._materials = Materials(self._store, ArtifactStore(settings.private_uri), self.device)
        self._scorer = Scorer(self._materials, settings.private_uri, settings.metrics)

    def probe(self) -> LaneInfo:
        """Tell what this lane is."""
        return LaneInfo(".".join(platform.python_version_tuple()[:2]), torch.__version__, str(self.device))

    def run(self, item: WorkItem, solved: Callable[[], None] = lambda: None) -> Receipt:
        """Compute an item; whatever goes wrong becomes the receipt's failure.

        Args:
            item: The item.
            solved: Called whenever a trial's result is stored, or a tenth of a stage is done.
        """
        meter = Meter(self.device)
        trial_failures: dict[str, Failure] = {}
        failure = None
        try:
            match item:
                case StageItem():
                    progress = StageProgress(self._store, item.request, solved)
                    self._materials.run_stage(item.request, item.spec, progress)
                    progress.ended()
                case FederationItem():
                    run_federation(self._materials, self._store, item)
                case BundleItem():
                    with using(self._table), at_most(item.lane_limit):
                        trial_failures = solve_bundle(
                            self._materials, self._store, self._scorer, item, meter, solved=solved
                        )
                    give_back_freed_memory()
        except Exception as error:  # failure is data: it becomes a retry or a row
            failure = describe(error)
        if failure is not None and failure.kind == "out_of_memory":
            failure = self._without_memory(item, failure)
        return Receipt(item.item_id, failure, trial_failures, meter.read(), self.name)

    def _without_memory(self, item: WorkItem, failure: Failure) -> Failure:
        """Make room for another try, and say how wide this one was."""
        give_back_memory()
        if not isinstance(item, BundleItem):
            return failure
        with using(self._table):
            return replace(failure, lanes=lanes_of(item, self.device.type))

    def begin_federation(self, item: FederationItem) -> FederationState:
        """Return where a federation stands, resuming from its latest checkpoint."""
        return state_of(self._materials, self._store, item)

    def train_chunk(self, item: FederationItem, round: int, chunk: int) -> ChunkResult:
        """Train one chunk of a round's participants and return their partial sum."""
        return train_chunk(self._materials, item, round, chunk)

    def finish_round(self, item: FederationItem, round: int, results: list[ChunkResult]) -> FederationState:
        """Aggregate a round, store its checkpoint and return where the federation stands."""
        return finish_round(self._materials, self._store, item, round, results)


class Meter:
    """Measures what a unit of work costs."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = self._lap = self._now()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def read(self) -> Usage:
        """Return the cost since the start."""
        return self._since(self._started)

    def lap(self) -> Usage:
        """Return the cost since the last lap."""
        usage, self._lap = self._since(self._lap), self._now()
        return usage

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def _since(self, then: tuple[float, float]) -> Usage:
        wall, cpu = (now - before for now, before in zip(self._now(), then, strict=True))
        on_gpu = self._device.type == "cuda"
        peak = (
            torch.cuda.max_memory_allocated(self._device) / 2**20
            if on_gpu
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        )
        return Usage(wall, cpu, wall if on_gpu else 0.0, peak)


@cache
def single_thread() -> None:
    """Compute with one thread and deterministic kernels; more would change bits and fight other lanes.

    Memory that torch frees stays with the process, and fresh memory is not filled: both cost a third of the
    time of small models.
    """
    torch.set_num_threads(1)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keep_freed_memory()


def probe_device(*, gpu: bool) -> torch.device:
    """Return the device after one small computation on it.

    Raises:
        DeviceError: If a GPU is asked for and does not work.
    """
    if not gpu:
        return torch.device("cpu")
    try:
        device = torch.device("cuda", torch.cuda.current_device())
        torch.ones(2, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DeviceError(f"expected a working CUDA device, got: {reason}") from error
    return device


def cpu_identity() -> str:
    """Return the CPU's vendor and the instruction set that torch uses, which bits depend on."""
    vendor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("vendor_id"):
                vendor = line.partition(":")[2].strip()
                break
    return f"{vendor} {torch.backends.cpu.get_cpu_capability()}"


def describe(error: Exception) -> Failure:
    """Return an exception as data; a user's error needs no traceback."""
    kind: FailureKind = "exception"
    if is_out_of_memory(error):
        kind = "out_of_memory"
    elif isinstance(error, DeviceError):
        kind = "device"
    elif isinstance(error, TimeoutError):
        kind = "timeout"
    text = str(error).strip() or type(error).__name__
    shown = text if isinstance(error, BenchError) else f"{type(error).__name__}: {text}"
    trace = "" if isinstance(error, BenchError) else "".join(traceback.format_exception(error))
    return Failure(kind, shown, trace)
