"""What a trial is made of, as data: read without torch, hashed canonically, shared by every package.

A spec says what to do and never how fast or where: resources, devices and names of experiments are not part
of it. Its canonical JSON (sorted keys, every default filled in, plug-in versions included) is what trial ids
and stage keys are hashed from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]

ObservationKind = Literal["update", "aggregate", "global_model"]
TaskKind = Literal["multiclass", "binary", "multilabel"]
BatchNormMode = Literal["train", "eval"]


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces; NaN and infinity are refused.

    Raises:
        ValueError: If a number is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(text: str) -> str:
    """Return the sha256 of `text`, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def added_later(default: Any, **field: Any) -> Any:
    """Declare a config field that joined after results existed: at its default it is left out of ids."""
    return Field(default, json_schema_extra={"added_later": True}, **field)


class Config(BaseModel):
    """Base of all plug-in configurations and spec sections: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @cached_property
    def canonical(self) -> str:
        """The canonical JSON: every field resolved, later-added fields left out at their default."""
        return canonical_json(self.resolved())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, its canonical JSON its own."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("canonical", None)
        return copy

    def resolved(self) -> dict[str, Any]:
        """Return every field as plain JSON values, later-added ones only where they differ from default."""
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            extra, value = field.json_schema_extra, getattr(self, name)
            if isinstance(extra, dict) and extra.get("added_later") and value == field.default:
                del values[name]
            elif isinstance(value, Config):
                values[name] = value.resolved()
            elif isinstance(value, tuple) and value and all(isinstance(item, Config) for item in value):
                values[name] = [item.resolved() for item in value]
        return values


class NoConfig(Config):
    """The configuration of a plug-in that has nothing to configure."""


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


class Iid(Config):
    """Shuffle, then deal out equally."""

    name: Literal["iid"] = "iid"


class Dirichlet(Config):
    """Class shares of each client from Dirichlet(alpha) (Hsu et al. 2019, arXiv 1909.06335, section 3)."""

    name: Literal["dirichlet"] = "dirichlet"
    alpha: float = Field(0.5, gt=0, description="concentration; smaller is less alike")
    min_images: int = Field(1, ge=1, description="every client gets at least this many images")


Partition = Iid | Dirichlet


class FederationSpec(Config):
    """How clients train together (McMahan et al. 2017, arXiv 1602.05629, Algorithm 1)."""

    algorithm: Literal["fedsgd", "fedavg"] = Field(
        "fedsgd", description="fedsgd: clients send the gradient of one batch; fedavg: a weight delta"
    )
    clients: int = Field(4, ge=1)
    participation: float = Field(1.0, gt=0, le=1, description="share of clients drawn each round")
    rounds: int = Field(1, ge=0)
    batch_size: int = Field(1, ge=1)
    local_epochs: int = Field(1, ge=1, description="fedavg: passes over the client's images each round")
    local_steps: int | None = Field(None, ge=1, description="fedavg: steps per round, instead of epochs")
    lr: float = Field(0.1, gt=0, description="fedsgd: the server's step; fedavg: the clients' step")
    server_lr: float = Field(1.0, gt=0, description="fedavg: the server's step on the mean delta")
    partition: Partition = Field(default_factory=Iid, discriminator="name")
    batch_norm: BatchNormMode = Field(
        "eval", description="train: batch statistics, running ones averaged by the server; eval: running ones"
    )
    freeze: Literal["none", "batch_norm", "all_but_last", "middle"] = "none"
    chunk: int = Field(16, ge=1, description="consecutive clients whose updates are summed together")

    @model_validator(mode="after")
    def _steps_belong_to_fedavg(self) -> FederationSpec:
        if self.algorithm == "fedsgd" and (self.local_steps is not None or self.local_epochs != 1):
            raise ValueError(
                "local_steps and local_epochs need algorithm: fedavg (fedsgd sends one gradient)"
            )
        return self

    @property
    def participants(self) -> int:
        """Number of clients drawn each round: max(floor(participation * clients), 1)."""
        return max(int(self.participation * self.clients + 1e-9), 1)


class KnowledgeSpec(Config):
    """What the adversary knows besides what it sees."""

    labels: Literal["unknown", "known"] = "unknown"
    local_hyperparameters: bool = Field(True, description="local learning rate, steps, batch size and epochs")
    batch_norm: Literal["none", "running", "exact"] = Field(
        "running", description="none; running statistics of the model sent; exact statistics of the batch"
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

    @model_validator(mode="after")
    def _rounds_belong_to_global_model(self) -> ObserveSpec:
        if self.rounds is not None and self.kind != "global_model":
            raise ValueError("observe.rounds needs observe.kind: global_model")
        return self

    @property
    def last_round(self) -> int:
        """The last round that must have begun for everything to be seen."""
        return max(self.rounds) if self.rounds else self.round


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
