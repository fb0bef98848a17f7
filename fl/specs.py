"""What a trial is made of, as data: read without torch, hashed canonically, shared by every package.

A spec says what to do and never how fast or where: resources, devices and names of experiments are not part
of it. Its canonical JSON (sorted keys, every default filled in, plug-in versions included) is what trial ids
and stage keys are hashed from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, model_validator

from fl.config import JSON, Config, NoConfig, added_later, canonical_json, digest
from fl.federation_spec import (
    BatchNormMode,
    ByPatient,
    Dirichlet,
    FederationSpec,
    Iid,
    Partition,
    Shards,
    Sizes,
    UpdateKind,
)

__all__ = [
    "JSON",
    "BatchNormMode",
    "BatchNormTier",
    "ByPatient",
    "Config",
    "Dirichlet",
    "FederationSpec",
    "Iid",
    "KnowledgeSpec",
    "NamedConfig",
    "NoConfig",
    "ObservationForm",
    "ObservationKind",
    "ObserveSpec",
    "Partition",
    "Plugin",
    "Recorded",
    "Shards",
    "Sizes",
    "Task",
    "TaskKind",
    "ThreatModel",
    "TrialSpec",
    "UpdateKind",
    "added_later",
    "canonical_json",
    "digest",
]

ObservationKind = Literal["update", "aggregate", "global_model"]
ObservationForm = Literal["shared", "parameter_difference"]
TaskKind = Literal["multiclass", "binary", "multilabel"]
BatchNormTier = Literal["none", "proxy", "running", "inferred", "exact"]


@dataclass(frozen=True)
class Plugin:
    """A plug-in by name with its validated configuration.

    Attributes:
        name: The registered name.
        version: The card's version: a constant bumped when results change.
        config: The validated configuration, defaults filled in.
    """

    name: str
    version: int
    config: Config

    @cached_property
    def canonical(self) -> str:
        """The canonical JSON of name, version and configuration."""
        return f'{{"config":{self.config.canonical},"name":{json.dumps(self.name)},"version":{self.version}}}'


@dataclass(frozen=True)
class Task:
    """What the model is trained for; decides the loss, which is never inferred from shapes.

    Attributes:
        kind: `multiclass` (softmax cross-entropy), `binary` (one sigmoid output) or `multilabel` (a sigmoid
            output per class).
        classes: Number of classes; 2 for `binary`.
    """

    kind: TaskKind
    classes: int

    @property
    def outputs(self) -> int:
        """Number of logits the head gives."""
        return 1 if self.kind == "binary" else self.classes

    @property
    def loss(self) -> Literal["cross_entropy", "binary_cross_entropy"]:
        """The training loss, averaged over the batch (and over outputs for sigmoid losses)."""
        return "cross_entropy" if self.kind == "multiclass" else "binary_cross_entropy"


class KnowledgeSpec(Config):
    """What the adversary knows besides what it sees."""

    labels: Literal["unknown", "known"] = "unknown"
    local_hyperparameters: bool = Field(True, description="local learning rate, steps, batch size and epochs")
    batch_norm: BatchNormTier = Field(
        "running",
        description="statistics of batch norms' inputs. none; proxy: of public images under the model sent; "
        "running: those in the model sent; inferred: the batch's, from the running ones before and after; "
        "exact: the batch's",
    )
    public_data: bool = Field(True, description="the public part of the data set (or `public:`)")


class NamedConfig(Config):
    """A plug-in named inside another section, its configuration resolved to plain JSON.

    Attributes:
        name: The registered name.
        version: The card's version, filled in when a matrix is read.
        config: The resolved configuration.
    """

    name: str
    version: int = Field(1, ge=1)
    config: dict[str, Any] = Field(default_factory=dict)


class ThreatModel(Config):
    """Who attacks, how it behaves and what it knows."""

    position: Literal["server", "participant", "eavesdropper"] = "server"
    behaviour: Literal["honest", "malicious"] = "honest"
    manipulation: NamedConfig | None = Field(None, description="malicious: how the model sent is changed")
    knowledge: KnowledgeSpec = Field(default_factory=KnowledgeSpec)

    @model_validator(mode="after")
    def _manipulation_is_malicious(self) -> ThreatModel:
        if (self.behaviour == "malicious") != (self.manipulation is not None):
            raise ValueError("behaviour: malicious and manipulation: go together")
        if self.behaviour == "malicious" and self.position != "server":
            raise ValueError("only position: server can send a manipulated model")
        return self


class ObserveSpec(Config):
    """What the adversary sees, and when."""

    kind: ObservationKind = "update"
    round: int = Field(0, ge=0, description="round whose updates are seen; 0 is the untrained model")
    rounds: tuple[int, ...] | None = Field(None, description="global_model: rounds whose models are kept")
    clients: int = Field(5, ge=2, description="aggregate: number of updates in the sum")
    form: ObservationForm = added_later(
        "shared",
        description="shared: the update itself; parameter_difference: the gradient inferred from two float32 "
        "checkpoints, the model sent and the model the client returned",
    )

    @model_validator(mode="after")
    def _rounds_belong_to_global_model(self) -> ObserveSpec:
        if self.rounds is not None and self.kind != "global_model":
            raise ValueError("observe.rounds needs observe.kind: global_model")
        if self.form == "parameter_difference" and self.kind != "update":
            raise ValueError("observe.form: parameter_difference needs observe.kind: update")
        return self

    @property
    def last_round(self) -> int:
        """The last round that must have begun for everything to be seen."""
        return max(self.rounds) if self.rounds else self.round

    @property
    def rounds_seen(self) -> tuple[int, ...]:
        """The rounds that the adversary sees, in order; the last one is attacked."""
        if self.kind != "global_model":
            return (self.round,)
        return tuple(sorted(self.rounds)) if self.rounds else tuple(range(self.round + 1))


class Recorded(Config):
    """A recorded observation that takes the place of data, model and federation.

    Attributes:
        file: Path as the user wrote it (not part of the identity).
        sha256: Digest of the file: the identity.
    """

    file: str
    sha256: str

    def resolved(self) -> dict[str, Any]:
        """Return the identity: where the file lies does not matter."""
        return {"sha256": self.sha256}


@dataclass(frozen=True)
class TrialSpec:
    """One cell of the matrix with one seed, every field resolved.

    Attributes:
        data: The data set; None for a recorded observation.
        model: The architecture; None for a recorded observation.
        federation: How the clients train; None for a recorded observation.
        defense: The defense with its noise budget filled into its configuration.
        noise_budget: The defense's headline strength, in its unit; 0.0 for `none`.
        threat_model: Who attacks and what is known.
        attacker: `static` ignores the defense, `adaptive` knows and models it.
        attack: The attack.
        observe: What is seen and when.
        targets: How many targets the trial attacks.
        seed: The matrix's seed value.
        public: Another data set whose public part is the attacker's, or None for the data set's own.
        recorded: The recorded observation, or None.
    """

    data: Plugin | None
    model: Plugin | None
    federation: FederationSpec | None
    defense: Plugin
    noise_budget: float
    threat_model: ThreatModel
    attacker: Literal["static", "adaptive"]
    attack: Plugin
    observe: ObserveSpec
    targets: int
    seed: int
    public: Plugin | None = None
    recorded: Recorded | None = None

    @cached_property
    def canonical(self) -> str:
        """The canonical JSON, assembled from the sections' cached fragments (a million a minute)."""
        parts = {
            "attack": self.attack.canonical,
            "attacker": f'"{self.attacker}"',
            "data": _canonical(self.data),
            "defense": self.defense.canonical,
            "federation": _canonical(self.federation),
            "model": _canonical(self.model),
            "noise_budget": repr(float(self.noise_budget)),
            "observe": self.observe.canonical,
            "public": _canonical(self.public),
            "recorded": _canonical(self.recorded),
            "seed": str(self.seed),
            "targets": str(self.targets),
            "threat_model": self.threat_model.canonical,
        }
        return "{" + ",".join(f'"{key}":{value}' for key, value in parts.items()) + "}"


def _canonical(section: Plugin | Config | None) -> str:
    return "null" if section is None else section.canonical
