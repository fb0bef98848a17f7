"""Lanes for the tests of the Ray executor: small arithmetic, and faults on request. They do without torch.

A fault is a file in the store, named after a place: the first lane that comes by removes it and does what it
says (`kill`: dies as if by SIGKILL).
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.execute.work import Failure, FederationItem, Receipt, StageItem, Usage

if TYPE_CHECKING:
    from harness.execute.executor import LaneSettings

SIZE = 20_000
"""Floats per sum: more than Ray returns inline, so that sums live on the node that made them."""


@dataclass(frozen=True)
class State:
    round: int
    chunks: tuple[int, ...]
    done: bool


@dataclass(frozen=True)
class ChunkSum:
    chunk: int
    values: np.ndarray


class ArithmeticLane:
    """Stages compute what their config asks for; federations add floats whose sum depends on the order."""

    def __init__(self, settings: LaneSettings, name: str, *, gpu: bool) -> None:
        self.folder = Path(settings.artifact_uri)
        self.name = name
        self.gpu = gpu
        self.come_by("open")

    def probe(self) -> None:
        self.come_by("probe")

    def run(self, item: StageItem | FederationItem) -> Receipt:
        if isinstance(item, FederationItem):
            self.note("whole")
            state = self.begin_federation(item)
            while not state.done:
                sums = [self.train_chunk(item, state.round, chunk) for chunk in state.chunks]
                state = self.finish_round(item, state.round, sums)
            return Receipt(item.item_id, lane=self.name)
        config = dict(item.request.config)
        self.note("stage", config.get("value", ""))
        self.come_by(f"stage-{config.get('value')}")
        match config["do"]:
            case "square":
                (self.folder / f"square-{config['value']}").write_text(str(config["value"] ** 2))
            case "sleep":
                time.sleep(config["seconds"])
            case "wait":
                while not (self.folder / "go").exists():
                    time.sleep(0.02)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "fail":
                return Receipt(item.item_id, Failure("exception", "it failed"), lane=self.name)
            case "escape":
                raise RuntimeError("a lane that breaks its promise")
            case "full":
                return Receipt(item.item_id, Failure("out_of_memory", "no memory"), lane=self.name)
        return Receipt(item.item_id, usage=Usage(cpu_s=1.0), lane=self.name)

    def begin_federation(self, item: FederationItem) -> State:
        self.come_by("begin")
        self.note("begin")
        rounds = [int(file.stem.rpartition("-")[2]) for file in self.folder.glob(f"{item.key}-*.npy")]
        return self.state(item, max(rounds, default=0))

    def train_chunk(self, item: FederationItem, round: int, chunk: int) -> ChunkSum:
        self.note("chunk", round, chunk)
        self.come_by(f"chunk-{round}-{chunk}")
        model = np.load(self.file(item, round)) if round else np.zeros(SIZE, np.float32)
        spec = item.spec.federation
        total = np.zeros(SIZE, np.float32)
        for client in range(chunk * spec.chunk, min((chunk + 1) * spec.chunk, spec.clients)):
            draw = np.random.default_rng([item.spec.seed, round, client])
            total += np.tanh(model) + draw.standard_normal(SIZE, dtype=np.float32) * 10.0 ** (client % 7)
        return ChunkSum(chunk, total)

    def finish_round(self, item: FederationItem, round: int, results: list[ChunkSum]) -> State:
        self.come_by(f"finish-{round}")
        self.note("finish", round)
        model = np.load(self.file(item, round)) if round else np.zeros(SIZE, np.float32)
        for result in sorted(results, key=lambda result: result.chunk):
            model = model + result.values / np.float32(item.spec.federation.clients)
        new = self.file(item, round + 1)
        partial = new.with_suffix(f".{os.getpid()}")
        with partial.open("wb") as file:
            np.save(file, model)
        partial.rename(new)
        return self.state(item, round + 1)

    def state(self, item: FederationItem, round: int) -> State:
        spec = item.spec.federation
        done = round >= spec.rounds
        return State(round, () if done else tuple(range(-(-spec.clients // spec.chunk))), done)

    def file(self, item: FederationItem, round: int) -> Path:
        return self.folder / f"{item.key}-{round}.npy"

    def note(self, *words: object) -> None:
        with (self.folder / "log").open("a") as log:
            log.write(" ".join(map(str, (os.getpid(), *words))) + "\n")

    def come_by(self, place: str) -> None:
        try:
            (self.folder / f"fault-{place}").unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


class BrokenChunkLane(ArithmeticLane):
    """One chunk of its federations cannot be trained."""

    def train_chunk(self, item: FederationItem, round: int, chunk: int) -> ChunkSum:
        if chunk == 1:
            raise ValueError("no such chunk")
        return super().train_chunk(item, round, chunk)


class GrantedLane(ArithmeticLane):
    """Notes what Ray gave it, then probes its device as the real lane does."""

    def __init__(self, settings: LaneSettings, name: str, *, gpu: bool) -> None:
        super().__init__(settings, name, gpu=gpu)
        import ray

        context = ray.get_runtime_context()
        granted = context.get_assigned_resources()
        self.note(
            "granted", granted.get("CPU", 0), granted.get("GPU", 0), len(context.get_accelerator_ids()["GPU"])
        )
        if gpu:
            from harness.execute.lane import probe_device

            probe_device(gpu=True)


class DeadlyChunkLane(ArithmeticLane):
    """One chunk of its federations kills whoever trains it."""

    def train_chunk(self, item: FederationItem, round: int, chunk: int) -> ChunkSum:
        if chunk == 1:
            (self.folder / f"fault-chunk-{round}-{chunk}").touch()
        return super().train_chunk(item, round, chunk)


class SlowChunkLane(ArithmeticLane):
    """Its chunks take for ever."""

    def train_chunk(self, item: FederationItem, round: int, chunk: int) -> ChunkSum:
        time.sleep(600)
        raise AssertionError
