"""One client's round: local training under a defense, from the received model to the update that is sent."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fl.hooks import Batch, ClientContext, ClientDefense, DefenseHooks, Step
from fl.local_update import BatchLog, Kind, local_update
from fl.seeds import Streams
from fl.specs import FederationSpec, Task
from fl.trainers import LocalTrainer, UnrolledTrainer
from fl.types import Artifact, ImageSpec, LocalTraining, ModelState, Refusal, Tensors, Update

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class ClientRecord:
    """One client's round, with what only the client knows.

    Attributes:
        client: Its index.
        update: What it sends, on the CPU; None if it refused.
        refusal: Why it refused, or None.
        image_ids: The images it trained on, each once, in order of first use.
        labels: Their labels: `n` int64 or `n x outputs` float, on the CPU.
        protected: `m x C x H x W` in [0, 1], on the CPU: the images as it trained on them, where the defense
            changed them; else None.
        loss: Mean training loss over its local steps, or None if there is none.
        defense_state: The state of its defense afterwards, on the CPU.
    """

    client: int
    update: Update | None
    refusal: Refusal | None
    image_ids: tuple[str, ...]
    labels: Tensor
    protected: Tensor | None
    loss: float | None
    defense_state: Tensors


def local_training(spec: FederationSpec, client: int, n_images: int, *, round_: int = 0) -> LocalTraining:
    """Return the local hyper-parameters of a client with `n_images` images, in a round.

    For FedSGD: one step with learning rate 1, since the update is the gradient itself.
    """
    batch_size = spec.batch_size_of(client)
    if spec.sends == "gradient":
        return LocalTraining(lr=1.0, steps=1, batch_size=batch_size, epochs=1)
    per_epoch = max(math.ceil(n_images / batch_size), 1)
    steps = spec.local_steps or spec.local_epochs * per_epoch
    return LocalTraining(
        lr=spec.lr_at(round_),
        steps=steps,
        batch_size=batch_size,
        epochs=math.ceil(steps / per_epoch),
        momentum=spec.momentum,
        weight_decay=spec.weight_decay,
        mu=spec.mu or 0.0,
    )


class Client:
    """One client of a federation: its images, and what it does in a round.

    Args:
        index: Its index.
        data: All its images, labels and image ids, on the device to compute on.
        spec: How the clients train.
        defense: What it applies.
        artifacts: What the defense's stages made, by the request's name.
        streams: The trial's streams.
    """

    def __init__(
        self,
        index: int,
        data: Batch,
        *,
        spec: FederationSpec,
        defense: DefenseHooks,
        artifacts: Mapping[str, Artifact],
        streams: Streams,
    ) -> None:
        self.index = index
        self.data = data
        self.kind: Kind = spec.sends
        self._spec = spec
        self._defense = defense
        self._streams = streams.at(client=index)
        self._positions = {image_id: i for i, image_id in enumerate(data.image_ids)}
        self._artifacts = artifacts

    def local(self, round_: int) -> LocalTraining:
        """Return its hyper-parameters in a round."""
        return local_training(self._spec, self.index, len(self.data), round_=round_)

    def defense(self, round_: int, state: Tensors | None = None) -> ClientDefense:
        """Return its defense for a round, with the state of an earlier one where there is one."""
        local = self.local(round_)
        context = ClientContext(
            client=self.index,
            n_images=len(self.data),
            image_ids=self.data.image_ids,
            rounds=self._spec.rounds,
            participation=self._spec.participation_of(self.index),
            batch_size=local.batch_size,
            local_steps=local.steps,
            lr=local.lr,
            kind=self.kind,
            artifacts=self._artifacts,
            streams=self._streams,
            read_images=self._read_images,
        )
        defense = self._defense.for_client(context)
        if state is not None:
            defense.load_state_dict(state)
        return defense

    def batches(self, defense: ClientDefense, round_: int) -> list[Tensor]:
        """Return the indices of the batches that the defense's sampler draws for a round."""
        stream, local = self._streams.torch("batches", round=round_), self.local(round_)
        drawn = defense.sampler(len(self.data), local.batch_size, local.epochs, stream)
        return list(drawn if self.kind == "gradient" else itertools.islice(drawn, local.steps))

    def inspect(
        self, defense: ClientDefense, trainer: LocalTrainer, received: ModelState, round_: int
    ) -> Refusal | None:
        """Let the defense look at the received model, which `trainer` has loaded."""
        return defense.inspect(
            trainer.model, Step(round_, 0, self._stream("inspect", round_, 0), received, trainer)
        )

    def refused(self, refusal: Refusal, defense: ClientDefense) -> ClientRecord:
        """Return the record of a round in which it does not train."""
        nothing = self.data.labels[:0].cpu()
        return ClientRecord(self.index, None, refusal, (), nothing, None, None, _on_cpu(defense.state_dict()))

    def train(
        self,
        defense: ClientDefense,
        trainer: LocalTrainer,
        received: ModelState,
        round_: int,
        *,
        batch: int = 0,
        protect: bool = True,
    ) -> ClientRecord:
        """Train from the received model, which `trainer` has loaded, and return the update.

        Args:
            defense: Its defense; its state moves on.
            trainer: The training, with `received` loaded.
            received: The model received.
            round_: The round's number.
            batch: FedSGD: which batch of the local epoch the gradient is taken on; 0 is the one sent.
            protect: Whether `ClientDefense.protect` is applied.
        """
        indices = self.batches(defense, round_)
        chosen = indices[batch : batch + 1] if self.kind == "gradient" else indices
        log = BatchLog()

        def step(index: int, purpose: str) -> Step:
            return Step(round_, index, self._stream(purpose, round_, batch + index), received, trainer)

        update = local_update(
            trainer,
            defense,
            (self._batch(i) for i in chosen),
            kind=self.kind,
            n_images=None if self.kind == "gradient" else len(self.data),
            step=step,
            log=log,
            share_buffers=received.batch_norm == "train",
        )
        if protect:
            update = defense.protect(update, step(len(chosen), "protect"))
        return ClientRecord(
            client=self.index,
            update=Update(update.kind, _on_cpu(update.tensors), _on_cpu(update.buffers), update.n_images),
            refusal=None,
            image_ids=tuple(log.image_ids),
            labels=self.data.labels[self._locate(log.image_ids)].cpu(),
            protected=log.protected(),
            loss=log.loss(),
            defense_state=_on_cpu(defense.state_dict()),
        )

    def _stream(self, purpose: str, round_: int, step: int) -> torch.Generator:
        return self._streams.torch(purpose, round=round_, step=step)

    def _batch(self, indices: Tensor) -> Batch:
        ids = tuple(self.data.image_ids[i] for i in indices.tolist())
        indices = indices.to(self.data.images.device)
        return Batch(self.data.images[indices], self.data.labels[indices], ids)

    def _locate(self, image_ids: Sequence[str]) -> list[int]:
        return [self._positions[image_id] for image_id in image_ids]

    def _read_images(self, image_ids: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        positions = self._locate(image_ids)
        return self.data.images[positions], self.data.labels[positions]


def simulate(
    images: Tensor,
    labels: Tensor,
    sent: ModelState,
    stream: torch.Generator,
    *,
    task: Task,
    image: ImageSpec,
    local: LocalTraining,
    kind: Kind,
    build: Callable[[ModelState], nn.Module],
    defense: ClientDefense | None = None,
    round_: int = 0,
) -> Update:
    """Return the update that a client with these images would send; differentiable in images and labels.

    The client takes `local.steps` steps on batches in the given order, over and over; for a `gradient`, one
    step on all images. It neither samples nor refuses.

    Args:
        images: `n x C x H x W` in [0, 1].
        labels: `n` int64, or `n x outputs` float (soft, binary or multilabel).
        sent: The model received.
        stream: Random numbers of the simulated client.
        task: Decides the loss.
        image: Normalisation of the images.
        local: The client's hyper-parameters.
        kind: Kind of update.
        build: From a state to its module, of which only structure and mode are used: it may be a cached one.
        defense: What the attacker knows the client to apply; None for a static attacker.
        round_: The round's number.
    """
    defense = defense or ClientDefense()
    whole = Batch(images, labels, tuple(map(str, range(len(images)))))
    with torch.enable_grad():
        trainer = UnrolledTrainer(
            build(sent),
            sent,
            task=task,
            image=image,
            local=local,
            device=images.device,
            differentiable=images.requires_grad or labels.requires_grad,
        )

        def step(index: int, purpose: str) -> Step:
            return Step(round_, index, stream, sent, trainer)

        batches = [whole] if kind == "gradient" else _in_order(whole, local)
        update = local_update(
            trainer,
            defense,
            batches,
            kind=kind,
            n_images=len(whole),
            step=step,
            log=None,
            share_buffers=sent.batch_norm == "train",
        )
        return defense.protect(update, step(len(batches), "protect"))


def _in_order(whole: Batch, local: LocalTraining) -> list[Batch]:
    size = local.batch_size
    starts = range(0, max(len(whole), 1), size)
    parts = [
        Batch(whole.images[i : i + size], whole.labels[i : i + size], whole.image_ids[i : i + size])
        for i in starts
    ]
    return list(itertools.islice(itertools.cycle(parts), local.steps))


def _on_cpu(tensors: Tensors) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}
