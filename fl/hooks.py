"""Where a defense may step into federated training, with plain training as the default of every hook.

The classes here are the federation's side of the seam: what it tells a defense and what it calls. A defense
overrides only what it changes (`defenses.base`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fl.specs import Task
from fl.types import Artifact, ModelState, Refusal, Tensors, Update, Wrapper

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from fl.seeds import Streams


@dataclass(frozen=True)
class Batch:
    """A training batch as the client holds it.

    Attributes:
        images: `n x C x H x W` in [0, 1], before normalisation; n may be 0 (Poisson sampling).
        labels: `n` int64, or `n x outputs` float (soft, binary or multilabel targets).
        image_ids: The n images' ids.
    """

    images: Tensor
    labels: Tensor
    image_ids: tuple[str, ...]

    def __len__(self) -> int:
        """Return n."""
        return len(self.image_ids)


@dataclass(frozen=True)
class ClientContext:
    """What a client's defense is told once.

    Attributes:
        client: Its index.
        n_images: Images it holds.
        image_ids: Their ids.
        rounds: Rounds of the federation.
        participation: Share of rounds that it takes part in.
        batch_size: Nominal batch size (the divisor of a Poisson batch's mean).
        local_steps: Local steps a round.
        lr: Local learning rate (1.0 for FedSGD, where an update is the gradient itself; where an attacker
            simulates a gradient inferred from a weight delta, what its units are in those of the gradient).
        kind: Kind of update it sends.
        artifacts: What the defense's stages made, by the request's name.
        streams: The client's own streams.
        read_images: From ids to images of this client, `n x C x H x W` in [0, 1], and labels.
    """

    client: int
    n_images: int
    image_ids: tuple[str, ...]
    rounds: int
    participation: float
    batch_size: int
    local_steps: int
    lr: float
    kind: Literal["gradient", "delta"]
    artifacts: Mapping[str, Artifact]
    streams: Streams
    read_images: Callable[[tuple[str, ...]], tuple[Tensor, Tensor]]


class Trainer(Protocol):
    """The local training under way, for defenses that rehearse a step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer | None
    parameters: Mapping[str, Tensor]
    """The current trainable tensors by name; leaves to differentiate with respect to."""
    differentiable: bool
    """Whether results must stay differentiable in the images (an attacker simulates the client)."""
    task: Task
    """What the model is trained for."""

    def snapshot(self) -> Any:
        """Return model (buffers included) and optimizer state, to be given to `restore`."""

    def restore(self, state: Any) -> None:
        """Put model and optimizer back, bit for bit."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of images in [0, 1]."""

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the task's mean loss; labels may be soft."""

    def float_buffers(self) -> Tensors:
        """Return copies of the floating-point buffers (batch-norm statistics) as they are now."""


@dataclass(frozen=True)
class Step:
    """Where the client is.

    Attributes:
        round: Round number.
        index: Local step within the round.
        stream: A generator of this client, round and step alone.
        received: The model received this round.
        trainer: The local training.
    """

    round: int
    index: int
    stream: torch.Generator
    received: ModelState
    trainer: Trainer


@dataclass(frozen=True)
class PrivacySpent:
    """A differential-privacy guarantee so far.

    Attributes:
        epsilon: epsilon.
        delta: delta.
        unit: What one unit of privacy is.
        accountant: How it was computed.
    """

    epsilon: float
    delta: float
    unit: Literal["example", "client"]
    accountant: str


class ClientDefense:
    """What one client does; it lives as long as the federation, through `state_dict`."""

    def state_dict(self) -> Tensors:
        """Return what must survive between rounds, as tensors; never sent anywhere."""
        return {}

    def load_state_dict(self, state: Tensors) -> None:
        """Take up the state of an earlier round."""

    def sampler(self, n: int, batch_size: int, epochs: int, stream: torch.Generator) -> Iterator[Tensor]:
        """Yield the indices (int64, each `b`) of one round's batches: by default shuffled epochs."""
        import torch

        for _ in range(epochs):
            yield from torch.split(torch.randperm(n, generator=stream), batch_size)

    def inspect(self, model: nn.Module, step: Step) -> Refusal | None:
        """Refuse a received model that looks manipulated, or return None."""
        return None

    def perturb_batch(self, step: Step, batch: Batch) -> Batch:
        """Change images or labels before training on them."""
        return batch

    def loss(self, step: Step, batch: Batch) -> Tensor:
        """Return the loss to differentiate."""
        return step.trainer.task_loss(step.trainer.forward(batch.images), batch.labels)

    def gradients(self, step: Step, batch: Batch) -> Tensors:
        """Return the gradient by trainable parameter name; by default that of `loss`, zero for no images."""
        import torch

        trainer = step.trainer
        if not len(batch):
            return {name: torch.zeros_like(p) for name, p in trainer.parameters.items()}
        gradients = torch.autograd.grad(
            self.loss(step, batch), tuple(trainer.parameters.values()), create_graph=trainer.differentiable
        )
        return dict(zip(trainer.parameters, gradients, strict=True))

    def protect(self, update: Update, step: Step) -> Update:
        """Change the finished update before it is sent."""
        return update


@dataclass(frozen=True)
class ServerContext:
    """What the server's defense is told when it releases a sum.

    Attributes:
        round: Round number.
        participants: Number of updates in the sum.
        stream: A generator of this round alone.
    """

    round: int
    participants: int
    stream: torch.Generator


class ServerDefense:
    """What the server does, and what of it the adversary sees."""

    visible: Literal["each", "sum"] = "each"
    """`sum` under secure aggregation: single updates are never seen."""

    def per_update(self, update: Update) -> Update:
        """Change one update before summing (central clipping)."""
        return update

    def release(self, mean: Update, context: ServerContext) -> Update:
        """Change the weighted mean before it is applied (central differential privacy)."""
        return mean


@dataclass(frozen=True)
class GuaranteeContext:
    """What an accountant needs to know about one client.

    Attributes:
        client: Its index.
        n_images: Images it holds.
        rounds: Rounds so far.
        participation: Share of rounds that it takes part in.
        batch_size: Nominal batch size.
        steps: Local steps a round.
    """

    client: int
    n_images: int
    rounds: int
    participation: float
    batch_size: int
    steps: int


class DefenseHooks(Protocol):
    """A configured defense as the federation sees it (`defenses.base.Defense` is one)."""

    def wrapper(self) -> Wrapper | None:
        """Name the change to the architecture, if any."""

    def wrap_model(self, model: nn.Module) -> nn.Module:
        """Change the architecture."""

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return what one client does."""

    def for_server(self) -> ServerDefense:
        """Return what the server does."""

    def guarantee(self, context: GuaranteeContext) -> PrivacySpent | None:
        """Return the differential privacy spent, or None if the defense gives none."""
