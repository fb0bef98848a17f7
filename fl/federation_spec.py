"""How clients share images and train together, as data; read without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fl.config import Config, added_later
from fl.participant import Participant

BatchNormMode = Literal["train", "eval"]
UpdateKind = Literal["gradient", "delta"]


class Iid(Config):
    """Shuffle, then deal out equally."""

    name: Literal["iid"] = "iid"


class Dirichlet(Config):
    """Class shares of each client from Dirichlet(alpha) (Hsu et al. 2019, arXiv 1909.06335, section 3)."""

    name: Literal["dirichlet"] = "dirichlet"
    alpha: float = Field(0.5, gt=0, description="concentration; smaller is less alike")
    min_images: int = Field(1, ge=1, description="every client gets at least this many images")


class Shards(Config):
    """Sort by class, cut into shards, deal some to each client (McMahan et al. 2017, section 3)."""

    name: Literal["shards"] = "shards"
    shards: int = Field(2, ge=1, description="shards that each client gets")


class ByPatient(Config):
    """Deal out whole patients (or other sources), so that no two clients hold images of the same one."""

    name: Literal["patient"] = "patient"
    allow_overlap: bool = Field(
        False, description="with fewer patients than clients: spread each one's images over clients"
    )


class Sizes(Config):
    """So many images for each client, drawn at random; images that are left over belong to nobody."""

    name: Literal["sizes"] = "sizes"
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1, description="images of each client")
    balanced: bool = Field(
        False, description="each client's classes as equal in number as the images left allow"
    )


Partition = Iid | Dirichlet | Shards | ByPatient | Sizes


class ConstantLr(Config):
    """The same learning rate in every round."""

    name: Literal["constant"] = "constant"

    def share(self, round_: int, rounds: int) -> float:
        """Return the share of `lr` that round `round_` has."""
        return 1.0


class StepLr(Config):
    """Multiply the learning rate by a factor from certain rounds on."""

    name: Literal["step"] = "step"
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=1, description="rounds, counted from 0, from which on `factor` applies once more"
    )
    factor: float = Field(0.1, gt=0)

    def share(self, round_: int, rounds: int) -> float:
        """Return the share of `lr` that round `round_` has."""
        return self.factor ** sum(round_ >= milestone for milestone in self.milestones)


class CosineLr(Config):
    """Half a cosine wave from `lr` at round 0 down to a share of it at the end of training."""

    name: Literal["cosine"] = "cosine"
    final: float = Field(0.01, gt=0, le=1, description="share of lr reached after the last round")

    def share(self, round_: int, rounds: int) -> float:
        """Return the share of `lr` that round `round_` of `rounds` has."""
        done = min(round_ / rounds, 1.0) if rounds else 0.0
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2


Schedule = ConstantLr | StepLr | CosineLr

OWN_OPTIONS: Mapping[str, Mapping[str, float]] = {
    "fedprox": {"mu": 0.01},
    "fedadam": {"beta1": 0.9, "beta2": 0.99, "tau": 1e-3},
    "fedadagrad": {"beta1": 0.0, "tau": 1e-3},
}
"""Options that only some algorithms read, with the defaults they get there; elsewhere they are null."""
ADAPTIVE_SERVER_LR = 0.01
"""Default of `server_lr` where the server's step adapts: each weight then moves by about that much."""


class FederationSpec(Config):
    """How clients train together (McMahan et al. 2017, arXiv 1602.05629, Algorithm 1, and its successors)."""

    algorithm: Literal["fedsgd", "fedavg", "fedprox", "fedadam", "fedadagrad"] = Field(
        "fedsgd",
        description="fedsgd: clients send the gradient of one batch; fedavg and the others: a weight delta",
    )
    clients: int = Field(4, ge=1)
    participation: float = Field(1.0, gt=0, le=1, description="share of clients drawn each round")
    rounds: int = Field(1, ge=0)
    batch_size: int = Field(1, ge=1)
    local_epochs: int = Field(1, ge=1, description="local training: passes over the client's images a round")
    local_steps: int | None = Field(None, ge=1, description="local training: steps per round, not epochs")
    lr: float = Field(0.1, gt=0, description="fedsgd: the server's step; else the clients' step")
    server_lr: float = Field(
        1.0, gt=0, description="the server's step on the mean delta; default 0.01 for fedadam and fedadagrad"
    )
    partition: Partition = Field(default_factory=Iid, discriminator="name")
    batch_norm: BatchNormMode = Field(
        "eval", description="train: batch statistics, running ones averaged by the server; eval: running ones"
    )
    freeze: Literal["none", "batch_norm", "all_but_last", "middle"] = Field(
        "none", description="what clients do not train; batch_norm also sets batch_norm: eval"
    )
    chunk: int = Field(16, ge=1, description="consecutive clients whose updates are summed together")
    batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] | None = added_later(
        None, description="batch size of each client, instead of batch_size"
    )
    momentum: float = added_later(0.0, ge=0, lt=1, description="of the clients' SGD, anew each round")
    weight_decay: float = added_later(0.0, ge=0, description="of the clients' SGD")
    schedule: Schedule = added_later(
        ConstantLr(), discriminator="name", description="lr as a function of the round"
    )
    mu: float | None = added_later(None, ge=0, description="fedprox: weight of the proximal term (0.01)")
    beta1: float | None = added_later(
        None, ge=0, lt=1, description="fedadam, fedadagrad: decay of the mean delta (0.9, 0)"
    )
    beta2: float | None = added_later(
        None, ge=0, lt=1, description="fedadam: decay of the squared delta (0.99)"
    )
    tau: float | None = added_later(
        None, gt=0, description="fedadam, fedadagrad: degree of adaptivity (1e-3)"
    )
    attacker: Participant | None = added_later(
        None, description="clients that attack the others, and the classes that either side holds"
    )

    @model_validator(mode="after")
    def _resolve(self) -> FederationSpec:
        """Fill in what depends on other fields; it is part of the identity like everything written."""
        own = OWN_OPTIONS.get(self.algorithm, {})
        resolved: dict[str, float | str] = {
            name: value for name, value in own.items() if getattr(self, name) is None
        }
        if self.algorithm in ("fedadam", "fedadagrad") and "server_lr" not in self.model_fields_set:
            resolved["server_lr"] = ADAPTIVE_SERVER_LR
        if self.freeze == "batch_norm":
            resolved["batch_norm"] = "eval"
        for name, value in resolved.items():
            object.__setattr__(self, name, value)  # frozen for everybody else
        return self

    @model_validator(mode="after")
    def _options_belong_to_the_algorithm(self) -> FederationSpec:
        if self.sends == "gradient":
            if self.local_steps is not None or self.local_epochs != 1:
                raise ValueError(
                    "local_steps and local_epochs need algorithm: fedavg (fedsgd sends one gradient)"
                )
            if self.momentum or self.weight_decay:
                raise ValueError(
                    "momentum and weight_decay need algorithm: fedavg (fedsgd has no local steps)"
                )
        if self.local_steps is not None and self.local_epochs != 1:
            raise ValueError("local_steps takes the place of local_epochs: leave local_epochs out")
        for name in ("mu", "beta1", "beta2", "tau"):
            readers = [algorithm for algorithm, own in OWN_OPTIONS.items() if name in own]
            if getattr(self, name) is not None and self.algorithm not in readers:
                raise ValueError(f"{name} needs algorithm: {' or '.join(readers)}, got {self.algorithm}")
        return self

    @model_validator(mode="after")
    def _one_entry_per_client(self) -> FederationSpec:
        if self.batch_sizes is not None and self.batch_size != 1:
            raise ValueError("batch_sizes takes the place of batch_size: leave batch_size out")
        lists = {"batch_sizes": self.batch_sizes}
        if isinstance(self.partition, Sizes):
            lists["partition.sizes"] = self.partition.sizes
        for name, entries in lists.items():
            if entries is not None and len(entries) != self.clients:
                raise ValueError(
                    f"expected one entry of {name} for each of {self.clients} clients, got {len(entries)}"
                )
        return self

    @model_validator(mode="after")
    def _attacks_others(self) -> FederationSpec:
        if self.attacker is None:
            return self
        if self.attacker.clients >= self.clients:
            raise ValueError(
                f"expected fewer than {self.clients} clients in attacker.clients, got {self.attacker.clients}"
            )
        if isinstance(self.partition, ByPatient):
            raise ValueError(
                "expected partition: iid, dirichlet, shards or sizes with an attacker, got patient; patients "
                "with images of several classes would be on both sides"
            )
        return self

    @property
    def sends(self) -> UpdateKind:
        """The kind of update that clients send."""
        return "gradient" if self.algorithm == "fedsgd" else "delta"

    @property
    def participants(self) -> int:
        """Number of clients of each round: max(floor(participation * clients), 1).

        Clients that attack are always among them, and at least one other.
        """
        return max(int(self.participation * self.clients + 1e-9), 1 + self.attackers)

    @property
    def attackers(self) -> int:
        """Number of clients that attack; they come first."""
        return 0 if self.attacker is None else self.attacker.clients

    @property
    def mean_batch_size(self) -> float:
        """Mean batch size over the clients."""
        sizes = self.batch_sizes or (self.batch_size,)
        return sum(sizes) / len(sizes)

    def participation_of(self, client: int) -> float:
        """Return the share of rounds that a client takes part in, on average."""
        if self.attacker is None:
            return self.participation
        if client < self.attackers:
            return 1.0
        return (self.participants - self.attackers) / (self.clients - self.attackers)

    def batch_size_of(self, client: int) -> int:
        """Return the batch size of a client."""
        return self.batch_size if self.batch_sizes is None else self.batch_sizes[client]

    def lr_at(self, round_: int) -> float:
        """Return the learning rate of a round."""
        return self.lr * self.schedule.share(round_, self.rounds)
