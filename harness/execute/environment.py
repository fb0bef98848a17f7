"""What an attack may use while it runs: a device, models, a place for snapshots, a clock. And its tasks.

Everything handed to an attack is built here, so this is where the wall between observation and secret stands:
a task holds the observation, public images and the client as the attacker knows it, nothing else.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import fl.models
from attacks.base import AttackTask, Snapshot
from defenses.base import AdversaryContext
from defenses.catalog import after_the_batch, is_mirrored, unperturbs
from defenses.norms import observed_gradient_unit
from fl.batch_norm import batch_statistics
from fl.client import simulate
from fl.hooks import ClientContext, ClientDefense
from fl.seeds import Streams
from fl.types import Artifact, LocalTraining, ModelState, Observation, PublicData, Update
from harness.execute.materials import build_defense, wrap
from harness.plan.stage_requests import attack_stages, defense_stages

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from defenses.base import Defense
    from fl.cards import StageRequest
    from fl.specs import TrialSpec
    from harness.execute.materials import Materials, Seen
    from harness.execute.work import Trial

PROXY_IMAGES = 256
"""Public images, spread over all, whose batch-norm statistics stand in for the private ones'."""
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
        rounds: Rounds of the federation.
        artifacts: What the defense's public stages made.
    """

    observation: Observation
    local: LocalTraining
    defense: Defense[Any] | None
    streams: Streams
    device: torch.device
    rounds: int = 1
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)

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
            round_=self.observation.history[-1].round,
        )

    def _client(self, n_images: int, kind: Any) -> ClientDefense | None:
        if self.defense is None:
            return None
        lr, steps = self.local.lr, self.local.steps
        if (
            kind == "gradient"
        ):  # one step, as long as the observed one: momentum shortens an inferred gradient
            lr, steps = observed_gradient_unit(self.observation), 1
        context = ClientContext(
            client=-1,
            n_images=n_images,
            image_ids=tuple(map(str, range(n_images))),
            rounds=self.rounds,
            participation=1.0,
            batch_size=self.local.batch_size,
            local_steps=steps,
            lr=lr,
            kind=kind,
            artifacts=self.artifacts,
            streams=self.streams,
            read_images=_no_private_images,
        )
        return self.defense.simulated(context, self.observation)


def _no_private_images(image_ids: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    raise PermissionError("a simulated client has no private images")


@dataclass(frozen=True)
class Unperturbation:
    """What an adaptive attacker takes out of a recovered batch; an `AttackTask.unperturb`.

    Attributes:
        defense: The defense it knows.
        observation: What it sees.
        rounds: Rounds of the federation.
        public: Its own images, where the threat model grants them.
        artifacts: What the defense's public stages made.
        streams: The target's own; the same draws at every call.
        device: Where to compute.
    """

    defense: Defense[Any]
    observation: Observation
    rounds: int
    public: PublicData | None
    artifacts: Mapping[str, Artifact]
    streams: Streams
    device: torch.device

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the private batch behind the one that was trained on, `n x C x H x W`, not clamped."""
        context = AdversaryContext(
            observation=self.observation,
            rounds=self.rounds,
            public=self.public,
            artifacts=self.artifacts,
            build=lambda state: fl.models.materialise(state, device=self.device, wrap=wrap),
            stream=self.streams.torch("unperturb"),
        )
        return self.defense.unperturb(images, labels, context)


class _Known(NamedTuple):
    """What an attacker knows of the defense: all None and empty for a static one.

    Attributes:
        simulated: What its simulated client applies.
        mirror: What its gradients go through.
        unperturbed: What it takes out of the recovered batch.
        artifacts: What the defense's public stages made.
    """

    simulated: Defense[Any] | None = None
    mirror: Defense[Any] | None = None
    unperturbed: Defense[Any] | None = None
    artifacts: Mapping[str, Artifact] = {}


def make_task(trial: Trial, seen: Seen, materials: Materials) -> AttackTask[Any]:
    """Return one target's task, with no more than the threat model grants."""
    spec = trial.spec
    streams, public = Streams(spec.seed).at(target=seen.target_id), materials.public(spec)
    observation = seen.observation
    if spec.threat_model.knowledge.batch_norm == "proxy" and public is not None:
        observation = _with_proxy(observation, public, materials)
    rounds = spec.federation.rounds if spec.federation else observation.history[-1].round + 1
    known = _known(spec, materials)
    visible = observation.history[-1].update
    n_images = visible.n_images if visible else 1
    granted = observation.knowledge.local_training
    local = granted or LocalTraining(lr=1.0, steps=1, batch_size=max(n_images, 1), epochs=1)
    device, unperturb = materials.device, None
    if known.unperturbed is not None:
        unperturb = Unperturbation(
            known.unperturbed, observation, rounds, public, known.artifacts, streams, device
        )
    return AttackTask(
        task_id=f"{trial.trial_id}/{seen.target_id}",
        observation=observation,
        config=spec.attack.config,
        streams=streams,
        public=public,
        simulate=Simulator(observation, local, known.simulated, streams, device, rounds, known.artifacts),
        adaptive=spec.attacker == "adaptive",
        defense=known.mirror,
        artifacts=materials.artifacts(_public(attack_stages(spec))),
        target_label=seen.label,
        unperturb=unperturb,
        group=trial.trial_id,
    )


def _with_proxy(observation: Observation, public: PublicData, materials: Materials) -> Observation:
    """Return the observation with statistics of public images under the model sent for the private ones'."""
    images = public.images[:: max(len(public.images) // PROXY_IMAGES, 1)][:PROXY_IMAGES]
    inputs = observation.image.normalise(images.to(materials.device))
    statistics = batch_statistics(materials.build(observation.sent), inputs)
    return replace(observation, knowledge=replace(observation.knowledge, batch_norm=statistics))


def _known(spec: TrialSpec, materials: Materials) -> _Known:
    if spec.attacker != "adaptive":
        return _Known()
    defense = build_defense(spec.defense)
    artifacts = materials.artifacts(_public(defense_stages(spec)))
    if not unperturbs(spec.defense):
        return _Known(defense, defense if is_mirrored(spec.defense) else None, None, artifacts)
    left = after_the_batch(spec.defense)
    rest = None if left is None else build_defense(left)
    return _Known(rest, rest, defense, artifacts)


def _public(requests: list[StageRequest]) -> list[StageRequest]:
    return [request for request in requests if not request.private]
