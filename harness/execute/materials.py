"""What a trial is made of, built from its spec in this process: data, defense, federation, observations.

Everything here is a pure function of the spec and of stored artifacts, so a lane can make whatever it lacks;
caches only save time. Observations are not stored: one costs a single local training, an attack on it
hundreds, and a raw update on disk would itself be a leak.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import fl.data
import fl.models
import fl.recorded
from defenses import DEFENSES
from fl.checkpoints import Checkpoint
from fl.errors import BenchError
from fl.federation import Federation
from fl.manipulations import manipulation
from fl.observe import draw_targets, observe
from fl.seeds import Streams
from fl.stage_context import StageContext
from fl.types import Artifact, ModelState, Observation, PublicData, Secret, Wrapper
from harness.plan.keys import checkpoint_key, federation_key
from harness.plan.stage_requests import attack_stages, defense_stages, judge_stages

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from defenses.base import Defense
    from fl.cards import StageRequest
    from fl.data.base import Dataset
    from fl.specs import Plugin, Recorded, TrialSpec
    from harness.store.artifacts import ArtifactStore

T = TypeVar("T")
HISTORY = "history"
JUDGE_SEED = 0
"""What is made for the judge is the same in trials of every seed."""


@dataclass(frozen=True)
class Seen:
    """One target of a trial: what the adversary sees, and apart from it what the judge needs.

    Attributes:
        target_id: The target.
        observation: For the adversary.
        secret: For the judge; None for a recorded observation without one.
        protected: The batch as the client trained on it, where the defense changed it (private).
        label: The class to recover (model inversion), else None.
    """

    target_id: str
    observation: Observation
    secret: Secret | None
    protected: Tensor | None
    label: int | None

    @property
    def refused(self) -> bool:
        """Whether the client refused to train, so that there is nothing to attack."""
        return self.observation.kind != "global_model" and self.observation.history[-1].update is None


class _Recent:
    """The few most recently used values."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        if key in self._values:
            self._values.move_to_end(key)
        else:
            self._values[key] = make()
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        value: T = self._values[key]
        return value


def wrap(wrapper: Wrapper, model: torch.nn.Module) -> torch.nn.Module:
    """Apply a defense's change of architecture, rebuilt from the wrapper's name and configuration alone."""
    config = DEFENSES.get(wrapper.name).config(**wrapper.config)
    wrapped: torch.nn.Module = DEFENSES.implementation(wrapper.name)(config).wrap_model(model)
    return wrapped


def build_defense(plugin: Plugin) -> Defense[Any]:
    """Return the configured defense."""
    defense: Defense[Any] = DEFENSES.implementation(plugin.name)(plugin.config)
    return defense


class Materials:
    """Builds and remembers what trials need, on one device."""

    def __init__(self, store: ArtifactStore, private: ArtifactStore, device: torch.device) -> None:
        self.device = device
        self._store = store
        self._private = private
        self._federations = _Recent(4)
        self._seen = _Recent(16)
        self._public = _Recent(4)

    def dataset(self, spec: TrialSpec) -> Dataset:
        """Return the trial's data set."""
        assert spec.data is not None
        return fl.data.load(spec.data)

    def answers(self, spec: TrialSpec) -> ArtifactStore:
        """Return where the trial's reconstructions are kept: a good one of a private image is private."""
        public = spec.data is not None and self.dataset(spec).info.public
        return self._store if public else self._private

    def public(self, spec: TrialSpec) -> PublicData | None:
        """Return the attacker's own images, if there are any and the threat model grants them."""
        source = spec.public or spec.data
        if source is None or not spec.threat_model.knowledge.public_data:
            return None
        return self._public_of(source)

    def judge_public(self, spec: TrialSpec) -> PublicData | None:
        """Return the public images for the judge's floors, if any, whether or not the attacker has them."""
        source = spec.public or spec.data
        return None if source is None else self._public_of(source)

    def _public_of(self, source: Plugin) -> PublicData | None:
        dataset = fl.data.load(source)
        if not len(dataset.part("public")):
            return None
        return self._public.get(source.canonical, lambda: fl.data.public_data(dataset))

    def artifacts(self, requests: list[StageRequest]) -> dict[str, Artifact]:
        """Return the stored output of each stage, by the request's name."""
        return {r.name: self._kept(r).get(r.key) for r in requests}

    def judge_artifacts(self, spec: TrialSpec) -> dict[str, Artifact]:
        """Return what was made for the judge of a trial, by the request's name; for scoring alone."""
        return self.artifacts(judge_stages(spec))

    def run_stage(
        self, request: StageRequest, spec: TrialSpec, progress: Callable[[float, str], None]
    ) -> None:
        """Compute and store a plug-in's stage, unless it is there.

        It gets the public images whether or not the attacker's knowledge grants them: what a defense makes of
        them is its clients' business, and an attack that needs them says so in `compatible`. What is made
        for the judge is shared by trials of every seed, and draws from the streams of `JUDGE_SEED`.

        Raises:
            BenchError: If the stage is public and one of its inputs is private.
        """
        from importlib import import_module

        store = self._kept(request)
        if store.has(request.key):
            return
        module, _, name = request.implementation.partition(":")
        implementation = getattr(import_module(module), name)
        partial = f"{request.key}-partial"
        context = StageContext(
            streams=Streams(JUDGE_SEED if request.judge else spec.seed),
            device=self.device,
            public=self.judge_public(spec),
            build=self.build,
            progress=progress,
            files=request.files,
            kept=lambda: store.get(partial) if store.has(partial) else None,
            keep=lambda artifact: store.put(partial, artifact),
        )
        models = set[str]()
        if request.round is not None:
            models = {federation_key(spec)}  # of all that it holds, the stage gets the model
            context = replace(context, model=self.model_sent(spec, request.round))
        if request.judge:
            context = replace(context, part=self.dataset(spec).part)
        inputs = {key: self._input(request, spec, key) for key in request.inputs if key not in models}
        store.put(request.key, implementation(request.config, inputs, context))
        store.discard(partial)

    def _kept(self, request: StageRequest) -> ArtifactStore:
        return self._private if request.kept_private else self._store

    def _input(self, request: StageRequest, spec: TrialSpec, key: str) -> Artifact:
        """Return an input of a stage: a public artifact, or for a private stage also a private one.

        What an adversary makes with an observed model may come from other things that it made with one.
        """
        if not self._private.has(key):
            return self._store.get(key)
        own = request.round is not None and any(
            stage.key == key and stage.round is not None and not stage.private
            for stage in attack_stages(spec)
        )
        if not request.private and not own:
            raise BenchError(
                f"stage {request.name!r}: expected public inputs for a public stage, got a private artifact, "
                "which its result could give away; declare the stage private"
            )
        return self._private.get(key)

    def federation(self, spec: TrialSpec) -> Federation:
        """Return the trial's federation, ready to compute rounds."""
        return self._federations.get(federation_key(spec), lambda: self._make_federation(spec))

    def _make_federation(self, spec: TrialSpec) -> Federation:
        assert spec.model is not None
        assert spec.federation is not None
        return Federation(
            data=self.dataset(spec),
            model=spec.model,
            spec=spec.federation,
            defense=build_defense(spec.defense),
            streams=Streams(spec.seed),
            artifacts=self.artifacts(defense_stages(spec)),
            manipulation=manipulation(spec.threat_model, Streams(spec.seed)),
            device=self.device,
        )

    def model_sent(self, spec: TrialSpec, round: int) -> ModelState:
        """Return the model that the server sends to its clients in a round.

        Raises:
            BenchError: If its federation has not come that far.
        """
        return self.federation(spec).sent(self.checkpoint(spec, round))

    def checkpoint(self, spec: TrialSpec, round: int) -> Checkpoint:
        """Return the state at the start of a round.

        Raises:
            BenchError: If its federation has not come that far.
        """
        if round == 0:
            return self.federation(spec).initial()
        key = checkpoint_key(federation_key(spec), round)
        if not self._private.has(key):
            raise BenchError(f"expected the federation's checkpoint of round {round}, got none in the store")
        return Checkpoint.from_artifact(self._private.get(key))

    def latest_round(self, spec: TrialSpec) -> int:
        """Return the last round whose start is stored (0 is always known)."""
        assert spec.federation is not None
        key = federation_key(spec)
        for number in range(spec.federation.rounds, 0, -1):
            if self._private.has(checkpoint_key(key, number)):
                return number
        return 0

    def store_checkpoint(self, spec: TrialSpec, checkpoint: Checkpoint, history: list[Any]) -> None:
        """Keep a checkpoint with the rounds' history; it holds the clients' defense states: private."""
        artifact = checkpoint.to_artifact()
        key = checkpoint_key(federation_key(spec), checkpoint.round)
        self._private.put(key, Artifact(artifact.tensors, {**artifact.data, HISTORY: history}))

    def history(self, spec: TrialSpec, round: int) -> list[dict[str, Any]]:
        """Return the rows of all rounds before the given one, from its checkpoint."""
        key = checkpoint_key(federation_key(spec), round)
        data: Any = self._private.read_json(key)
        history: list[dict[str, Any]] = data[HISTORY]
        return history

    def seen(self, spec: TrialSpec) -> tuple[Seen, ...]:
        """Return the trial's targets as seen under its threat model, drawn from its seed's stream."""
        if spec.recorded is not None:
            recorded = spec.recorded
            return self._seen.get(recorded.sha256, lambda: _read_recorded(recorded))
        address = (federation_key(spec), spec.observe.canonical, spec.threat_model.canonical, spec.targets)
        return self._seen.get(address, lambda: self._observe(spec))

    def _observe(self, spec: TrialSpec) -> tuple[Seen, ...]:
        federation = self.federation(spec)
        targets = draw_targets(federation, spec.observe, spec.targets)
        rounds = sorted({number for target in targets for number in target.rounds})
        checkpoints = {number: self.checkpoint(spec, number) for number in rounds}
        form = spec.observe.form
        observed = [(t, observe(federation, checkpoints, t, spec.threat_model, form=form)) for t in targets]
        return tuple(Seen(t.id, o.observation, o.secret, o.protected, t.label) for t, o in observed)

    def build(self, state: ModelState) -> torch.nn.Module:
        """Return the module of a state, wrappers included."""
        return fl.models.materialise(state, device=self.device, wrap=wrap)


def _read_recorded(recorded: Recorded) -> tuple[Seen, ...]:
    observation, secret = fl.recorded.read(Path(recorded.file))
    return (Seen("recorded", observation, secret, None, None),)
