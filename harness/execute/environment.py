"""What an attack may use while it runs: a device, models, a place for snapshots, a clock. And its tasks.

Everything handed to an attack is built here, so this is where the wall between observation and secret stands:
a task holds the observation, public images and the client as the attacker knows it, nothing else.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fl.models
from attacks.base import AttackTask, Snapshot
from defenses.catalog import is_mirrored
from fl.client import simulate
from fl.hooks import ClientContext, ClientDefense
from fl.seeds import Streams
from fl.types import LocalTraining, ModelState, Observation, Update
from harness.execute.materials import build_defense, wrap
from harness.execute.schedule import stage_requests

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from defenses.base import Defense
    from harness.execute.materials import Materials, Seen
    from harness.execute.work import Trial

MAX_SNAPSHOTS = 60
"""Even, so that thinning always keeps the latest of the snapshots on the grid."""


class Environment:
    """An `attacks.base.AttackEnv`."""

    def __init__(self, device: torch.device, *, timeout_s: float | None) -> None:
        self.device = device
        self._traces: dict[str, _Trace] = defaultdict(_Trace)
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def build(self, state: ModelState) -> nn.Module:
        """Return the module with the state's weights, wrappers included, on the device, in its mode."""
        return fl.models.materialise(state, device=self.device, wrap=wrap)

    def record(self, task_id: str, snapshot: Snapshot) -> None:
        """Keep a snapshot; of too many, every other one."""
        self._traces[task_id].add(snapshot)

    def taken(self, task_id: str) -> list[Snapshot]:
        """Hand over a task's snapshots, spread evenly over its run, the first and the latest among them."""
        return self._traces.pop(task_id, _Trace()).snapshots()

    def stopping(self, task_id: str) -> bool:
        """Whether the deadline has passed."""
        return self._deadline is not None and time.monotonic() > self._deadline


class _Trace:
    """Every 2^k-th snapshot of a task, and the latest."""

    def __init__(self) -> None:
        self._kept: list[Snapshot] = []
        self._latest: list[Snapshot] = []
        self._stride = 1
        self._seen = 0

    def add(self, snapshot: Snapshot) -> None:
        on_grid = self._seen % self._stride == 0
        if on_grid:
            self._kept.append(snapshot)
        self._latest = [] if on_grid else [snapshot]
        self._seen += 1
        if len(self._kept) > MAX_SNAPSHOTS:
            del self._kept[1::2]
            self._stride *= 2

    def snapshots(self) -> list[Snapshot]:
        return self._kept + self._latest


@dataclass(frozen=True)
class Simulator:
    """The client as an attacker knows it; an `attacks.base.Simulate` without any private data.

    Attributes:
        observation: What the adversary sees (task, normalisation, kind of update).
        local: The local hyper-parameters it knows or assumes.
        defense: The defense it knows of, or None.
        streams: Where the simulated client's defense draws from.
        device: Where to compute.
    """

    observation: Observation
    local: LocalTraining
    defense: Defense[Any] | None
    streams: Streams
    device: torch.device

    def __call__(self, images: Tensor, labels: Tensor, sent: ModelState, stream: torch.Generator) -> Update:
        """Return the update on these images and labels; differentiable in both."""
        kind = self.observation.update.kind if self.observation.history[-1].update else "gradient"
        return simulate(
            images,
            labels,
            sent,
            stream,
            task=self.observation.task,
            image=self.observation.image,
            local=self.local,
            kind=kind,
            build=lambda state: fl.models.materialise(state, device=self.device, wrap=wrap),
            defense=self._client(len(images), kind),
        )

    def _client(self, n_images: int, kind: Any) -> ClientDefense | None:
        if self.defense is None:
            return None
        context = ClientContext(
            client=-1,
            n_images=n_images,
            image_ids=tuple(map(str, range(n_images))),
            rounds=self.observation.history[-1].round + 1,
            participation=1.0,
            batch_size=self.local.batch_size,
            local_steps=self.local.steps,
            lr=self.local.lr,
            kind=kind,
            artifacts={},
            streams=self.streams,
            read_images=_no_private_images,
        )
        return self.defense.for_client(context)


def _no_private_images(image_ids: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    raise PermissionError("a simulated client has no private images")


def make_task(trial: Trial, seen: Seen, materials: Materials) -> AttackTask[Any]:
    """Return one target's task, with no more than the threat model grants."""
    spec, observation = trial.spec, seen.observation
    streams = Streams(spec.seed).at(target=seen.target_id)
    defense = build_defense(spec.defense) if spec.attacker == "adaptive" else None
    mirrored = defense is not None and is_mirrored(spec.defense)
    visible = observation.history[-1].update
    n_images = visible.n_images if visible else 1
    known = observation.knowledge.local_training
    assumed = LocalTraining(lr=1.0, steps=1, batch_size=max(n_images, 1), epochs=1)
    return AttackTask(
        task_id=f"{trial.trial_id}/{seen.target_id}",
        observation=observation,
        config=spec.attack.config,
        streams=streams,
        public=materials.public(spec),
        simulate=Simulator(observation, known or assumed, defense, streams, materials.device),
        adaptive=defense is not None,
        defense=defense if mirrored else None,
        artifacts=materials.artifacts([r for r in stage_requests(spec) if not r.private]),
        target_label=seen.label,
    )
