"""What moves between clients, server, adversary and judge: frozen, typed, and nothing else.

Tensors are float32 unless said otherwise and lie on the CPU; whoever computes moves them. Shapes use n images
of C channels, H x W pixels. Images outside a model are in [0, 1]; a model takes normalised ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from fl.specs import JSON, BatchNormMode, ObservationKind, Task

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]

OBSERVATION_SCHEMA = 1
"""Version of the on-disk form of an `Observation` (`fl.recorded`)."""


@dataclass(frozen=True)
class ImageSpec:
    """Shape and normalisation of the images that a model takes.

    Attributes:
        channels: C.
        size: H = W.
        mean: Per-channel mean, in [0, 1].
        std: Per-channel standard deviation.
    """

    channels: int
    size: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, self.size, self.size)

    def normalise(self, images: Tensor) -> Tensor:
        """From [0, 1], `n x C x H x W`, to the model's input space."""
        mean, std = self._statistics(images)
        return (images - mean) / std

    def denormalise(self, inputs: Tensor) -> Tensor:
        """From the model's input space to [0, 1] (not clamped)."""
        mean, std = self._statistics(inputs)
        return inputs * std + mean

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean = like.new_tensor(self.mean).view(-1, 1, 1)
        return mean, like.new_tensor(self.std).view(-1, 1, 1)


@dataclass(frozen=True)
class Wrapper:
    """A change to the architecture by a defense (PRECODE, MID-VIB): named, so that a model can be rebuilt."""

    name: str
    config: Mapping[str, JSON]


@dataclass(frozen=True)
class Architecture:
    """Everything that rebuilds a module without weights; plain JSON.

    Attributes:
        name: Registered model name.
        config: Its configuration, resolved.
        image: What it takes.
        outputs: Logits it gives.
        wrappers: Changes by the defense, innermost first.
    """

    name: str
    config: Mapping[str, JSON]
    image: ImageSpec
    outputs: int
    wrappers: tuple[Wrapper, ...] = ()


@dataclass(frozen=True)
class ModelState:
    """A model as it is sent.

    Attributes:
        architecture: How to build it.
        tensors: Parameters and buffers by name.
        trainable: Names of the parameters that clients train; the rest is frozen.
        batch_norm: Mode in which clients compute (`train`: batch statistics).
    """

    architecture: Architecture
    tensors: Tensors
    trainable: tuple[str, ...]
    batch_norm: BatchNormMode


@dataclass(frozen=True)
class Update:
    """What a client sends, or a sum of what several sent.

    Attributes:
        kind: `gradient` of the mean loss of one batch (FedSGD), or `delta`, the weights after local training
            minus the weights received (FedAvg).
        tensors: By parameter name; a frozen parameter is absent.
        buffers: Floating-point buffers (batch-norm statistics) after training, by name; empty: not shared.
        n_images: Images the client reports (divisor of the mean loss, or weight of a delta).
    """

    kind: Literal["gradient", "delta"]
    tensors: Tensors
    buffers: Tensors
    n_images: int


@dataclass(frozen=True)
class Refusal:
    """A client's refusal to train on the model it received."""

    reason: str


@dataclass(frozen=True)
class RoundView:
    """One round as the adversary sees it.

    Attributes:
        round: Its number.
        sent: The model that was sent.
        update: What came back; None if it is not visible or the client refused.
    """

    round: int
    sent: ModelState
    update: Update | None


@dataclass(frozen=True)
class LocalTraining:
    """The clients' local hyper-parameters.

    Attributes:
        lr: Learning rate of the round.
        steps: Local steps of the round.
        batch_size: Images per step.
        epochs: Passes over the client's images that the steps make.
        momentum: Of SGD; it starts anew each round.
        weight_decay: Of SGD.
        mu: Weight of FedProx's proximal term, 0 without one.
        batch_sizes: Of an aggregate whose clients all take `steps`, but not of as many images, images per
            step of each of `Observation.clients`; empty: `batch_size` of all.
    """

    lr: float
    steps: int
    batch_size: int
    epochs: int
    momentum: float = 0.0
    weight_decay: float = 0.0
    mu: float = 0.0
    batch_sizes: tuple[int, ...] = ()

    @property
    def reach(self) -> float:
        """How far the weights move along a constant gradient of length 1: lr x steps without momentum."""
        if not self.momentum:
            return self.lr * self.steps
        # after i steps the velocity is 1 + m + ... + m^(i-1)
        velocities = ((1 - self.momentum**i) / (1 - self.momentum) for i in range(1, self.steps + 1))
        return self.lr * math.fsum(velocities)


@dataclass(frozen=True)
class Knowledge:
    """Values that the threat model grants; None where it does not.

    Attributes:
        labels: `n` int64 (multiclass), or `n x outputs` float (binary, multilabel), in batch order.
        local_training: Local learning rate, steps, batch size and epochs.
        batch_norm: Statistics of batch norms' inputs by buffer name (`fl.batch_norm`), of the tier granted.
    """

    labels: Tensor | None = None
    local_training: LocalTraining | None = None
    batch_norm: Tensors | None = None


@dataclass(frozen=True)
class Observation:
    """What the adversary sees of one target.

    Attributes:
        kind: `update` of one client, `aggregate` of several (sum weighted by `n_images`, divided by their
            total), or `global_model` of several rounds.
        clients: Whose updates it holds; empty for `global_model`.
        history: The rounds, in order; the last one is attacked.
        task: What the model is trained for.
        image: Shape and normalisation of the images.
        knowledge: What the threat model grants.
    """

    kind: ObservationKind
    clients: tuple[int, ...]
    history: tuple[RoundView, ...]
    task: Task
    image: ImageSpec
    knowledge: Knowledge

    @property
    def sent(self) -> ModelState:
        """The model of the last round."""
        return self.history[-1].sent

    @property
    def update(self) -> Update:
        """The update of the last round.

        Raises:
            ValueError: If none is visible there.
        """
        update = self.history[-1].update
        if update is None:
            raise ValueError("expected an observed update, got none in the last round")
        return update

    @property
    def n_images(self) -> int:
        """How many images are behind the last round's update, as far as the adversary can tell.

        Known labels tell. Else a delta reports all images of its client, an aggregate those of all together;
        where the local steps are known, they take no more than their batches hold. How many images each
        client of an aggregate has is not known: that is counted as if all had the mean, so clients unlike
        one another that take fixed local steps may have trained on fewer.

        Raises:
            ValueError: If no update is visible there.
        """
        update, labels, local = self.update, self.knowledge.labels, self.knowledge.local_training
        if labels is not None:
            return len(labels)
        if update.kind == "gradient" or local is None:
            return update.n_images
        sizes = local.batch_sizes or (local.batch_size,) * max(len(self.clients), 1)
        held = update.n_images / len(sizes)
        return round(sum(min(held, local.steps * size) for size in sizes))


@dataclass(frozen=True)
class Secret:
    """The private batch behind an observation, as references: never pixels, never given to an attack.

    Attributes:
        fingerprint: Of the data set (`DataInfo.fingerprint`).
        image_ids: Ids of the images in the data set's private part, in batch order.
        labels: Their labels: a class each, or a tuple of 0/1 for multilabel.
        protected: Key of the private artifact with the batch as the client trained on it (`images`
            `n x C x H x W` in [0, 1]), where the defense changed it.
    """

    fingerprint: str
    image_ids: tuple[str, ...]
    labels: tuple[int, ...] | tuple[tuple[int, ...], ...]
    protected: str | None = None


@dataclass(frozen=True)
class Artifact:
    """The stored output of a stage: tensors and plain JSON."""

    tensors: Tensors
    data: Mapping[str, JSON] = field(default_factory=dict)


class PublicData(Protocol):
    """The attacker's own images: the public part of a data set."""

    @property
    def images(self) -> Tensor:
        """`N x C x H x W` in [0, 1]."""

    @property
    def labels(self) -> Tensor:
        """`N` int64 (-1: of no class), or `N x outputs` float."""

    @property
    def mean_image(self) -> Tensor:
        """`C x H x W`, the mean of `images`."""
