"""The federation: clients, server and rounds, without saying who computes them.

A round is `train_chunk` for every chunk of `chunks(round)`, in any order and anywhere, and then
`finish_round` once. Everything is a pure function of the constructor's arguments and the checkpoint, so a
chunk can be computed again, and an update of any checkpoint can be recomputed to the bit (`client_update`).

A malicious server sends a manipulated model. What it sees in return is `client_update`. The federation itself
goes on as if the manipulated copy had been sent besides: clients that do not refuse it contribute the update
of the clean global model, so that utility is that of the honest federation without the refusing clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from fl.checkpoints import Checkpoint, ChunkResult, ClientSummary, RoundRecord, round_record, summarise
from fl.client import Client, ClientRecord, local_training
from fl.data.partition import shares_groups
from fl.data.partition_sides import deal
from fl.hooks import Batch, DefenseHooks, GuaranteeContext, PrivacySpent, ServerContext
from fl.models import architecture, initial_state, materialise
from fl.seeds import Streams
from fl.server import Chunk, WeightedSum, chunks_of, draw_participants, mean_update, server_step
from fl.specs import BatchNormMode, FederationSpec, Plugin
from fl.trainers import LocalTrainer
from fl.types import Architecture, Artifact, ModelState, Tensors, Wrapper

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fl.data.base import Dataset

_ModelKind = tuple[Architecture, tuple[str, ...], BatchNormMode]


class Federation:
    """Clients with private data and a server, training one model together.

    Args:
        data: The data set; clients share its private part.
        model: The architecture.
        spec: How they train.
        defense: What clients and server do so that less leaks.
        streams: The trial's streams.
        artifacts: What the defense's stages made, by the request's name.
        manipulation: How a malicious server changes the model it sends; None for an honest one.
        device: Where to compute.

    Raises:
        UsageError: If the model cannot take the data set's images, or the partition cannot be made.
    """

    def __init__(
        self,
        *,
        data: Dataset,
        model: Plugin,
        spec: FederationSpec,
        defense: DefenseHooks,
        streams: Streams,
        artifacts: Mapping[str, Artifact] | None = None,
        manipulation: Callable[[ModelState], ModelState] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.data = data
        self.spec = spec
        self.defense = defense
        self.server_defense = defense.for_server()
        self.streams = streams
        self.device = torch.device(device)
        wrapper = defense.wrapper()
        self.architecture = architecture(model, data.info, (wrapper,) if wrapper else ())
        self._artifacts = artifacts or {}
        self._manipulation = manipulation
        stream = streams.numpy("partition")
        self._held = deal(spec, data.part("private"), task=data.info.task, stream=stream)
        self._clients: dict[int, Client] = {}
        self._trainers: list[tuple[_ModelKind, LocalTrainer]] = []

    def build(self, state: ModelState) -> nn.Module:
        """Return a module of its own for a state, wrappers included, on the federation's device."""
        return materialise(state, device=self.device, wrap=self._wrap)

    def client(self, index: int) -> Client:
        """Return a client; its images are read once."""
        if index not in self._clients:
            part, positions = self.data.part("private"), [int(i) for i in self._held[index]]
            images = part.images(positions) if positions else torch.empty(0, *self.architecture.image.shape)
            self._clients[index] = Client(
                index,
                Batch(
                    images.to(self.device),
                    part.labels[positions].to(self.device),
                    tuple(part.ids[i] for i in positions),
                ),
                spec=self.spec,
                defense=self.defense,
                artifacts=self._artifacts,
                streams=self.streams,
            )
        return self._clients[index]

    def n_images(self, client: int) -> int:
        """Return the number of images a client holds."""
        return len(self._held[client])

    @cached_property
    def holders(self) -> dict[int, int]:
        """The client that holds an image, by its position in the private part."""
        return {int(position): client for client, hand in enumerate(self._held) for position in hand}

    @cached_property
    def held_by_others(self) -> tuple[int, ...]:
        """Positions in the private part of the images of clients that do not attack, in order."""
        first = self.spec.attackers
        return tuple(sorted(position for position, client in self.holders.items() if client >= first))

    @cached_property
    def patient_overlap(self) -> bool | None:
        """Whether images of one patient or source lie on more than one client; None where unknown."""
        return shares_groups(self._held, self.data.part("private").groups)

    def participants(self, round_: int) -> tuple[int, ...]:
        """Return the clients that take part in a round, in order."""
        return draw_participants(self.spec, self.streams, round_)

    def chunks(self, round_: int) -> tuple[Chunk, ...]:
        """Return the round's participants in chunks, whose borders never move."""
        return chunks_of(self.spec, self.participants(round_))

    def batch_sizes(self, round_: int, client: int) -> tuple[int, ...]:
        """Return the sizes of the batches a client draws for a round; Poisson batches may be empty."""
        member = self.client(client)
        return tuple(len(indices) for indices in member.batches(member.defense(round_), round_))

    def initial(self) -> Checkpoint:
        """Return the start of round 0."""
        model = initial_state(
            self.architecture,
            streams=self.streams,
            freeze=self.spec.freeze,
            batch_norm=self.spec.batch_norm,
            wrap=self._wrap,
        )
        return Checkpoint(round=0, model=model, defense_states={})

    def sent(self, checkpoint: Checkpoint) -> ModelState:
        """Return the model that the server sends: the global one, or a manipulated copy."""
        return self._manipulation(checkpoint.model) if self._manipulation else checkpoint.model

    def train_chunk(self, checkpoint: Checkpoint, chunk: Chunk) -> ChunkResult:
        """Let the chunk's clients train, and sum their updates in client order."""
        total = WeightedSum()
        summaries: list[ClientSummary] = []
        states: dict[int, Tensors] = {}
        sent = self.sent(checkpoint)
        for index in chunk.clients:
            record = self._client_round(checkpoint, index, sent, train_on=checkpoint.model)
            if record.update is not None:
                total.add(self.server_defense.per_update(record.update))
            summaries.append(summarise(record, sent))
            states[index] = record.defense_state
        return ChunkResult(
            round=checkpoint.round,
            chunk=chunk.index,
            sums=total.tensors,
            buffers=total.buffers,
            n_images=total.n_images,
            clients=tuple(summaries),
            defense_states=states,
        )

    def finish_round(
        self, checkpoint: Checkpoint, results: Sequence[ChunkResult]
    ) -> tuple[Checkpoint, RoundRecord]:
        """Average the round's chunks, in their order, and take the server's step.

        Raises:
            ValueError: If `results` are not those of the checkpoint's round, one for each chunk.
        """
        round_ = checkpoint.round
        ordered = sorted(results, key=lambda result: result.chunk)
        expected = [(round_, chunk.index) for chunk in self.chunks(round_)]
        if (got := [(result.round, result.chunk) for result in ordered]) != expected:
            raise ValueError(f"expected results of (round, chunk) {expected}, got {got}")
        total = WeightedSum()
        for result in ordered:
            total.merge(result.sums, result.buffers, result.n_images)
        clients = [client for result in ordered for client in result.clients]
        model, server_state = checkpoint.model, checkpoint.server_state
        if (mean := mean_update(total, self.spec)) is not None:
            contributed = sum(client.refusal is None for client in clients)
            context = ServerContext(round_, contributed, self.streams.torch("release", round=round_))
            released = self.server_defense.release(mean, context)
            model, server_state = server_step(model, released, self.spec, round_=round_, state=server_state)
        states = dict(checkpoint.defense_states)
        for result in ordered:
            states.update(result.defense_states)
        record = round_record(round_, clients, self._privacy(round_ + 1))
        return Checkpoint(round_ + 1, model, dict(sorted(states.items())), server_state), record

    def run(self, start: Checkpoint | None = None) -> Iterator[tuple[Checkpoint, RoundRecord]]:
        """Train the remaining rounds in this process, yielding after each."""
        checkpoint = start or self.initial()
        while checkpoint.round < self.spec.rounds:
            results = [self.train_chunk(checkpoint, chunk) for chunk in self.chunks(checkpoint.round)]
            checkpoint, record = self.finish_round(checkpoint, results)
            yield checkpoint, record

    def client_update(
        self, checkpoint: Checkpoint, client: int, *, batch: int | None = None, protect: bool = True
    ) -> ClientRecord:
        """Return what a client answers to the model sent in the checkpoint's round, to the bit.

        Args:
            checkpoint: The start of the round.
            client: Its index; it need not be among the round's participants.
            batch: FedSGD: which batch of its local epoch; None or 0 is the one it sends.
            protect: Whether its defense's `protect` is applied.
        """
        sent = self.sent(checkpoint)
        return self._client_round(checkpoint, client, sent, train_on=sent, batch=batch or 0, protect=protect)

    def predict(
        self, checkpoint: Checkpoint, part: str = "test", *, batch_size: int = 256
    ) -> tuple[Tensor, Tensor]:
        """Return the global model's logits, `N x outputs`, and the labels of a part, on the CPU.

        Batch norm uses running statistics.
        """
        images_of = self.data.part(part)
        module = self.build(checkpoint.model).eval()
        normalise = self.architecture.image.normalise
        logits = [torch.empty(0, self.architecture.outputs)]
        with torch.no_grad():
            for start in range(0, len(images_of), batch_size):
                positions = range(start, min(start + batch_size, len(images_of)))
                logits.append(module(normalise(images_of.images(positions).to(self.device))).cpu())
        return torch.cat(logits), images_of.labels

    def _client_round(
        self,
        checkpoint: Checkpoint,
        index: int,
        sent: ModelState,
        *,
        train_on: ModelState,
        batch: int = 0,
        protect: bool = True,
    ) -> ClientRecord:
        client, round_ = self.client(index), checkpoint.round
        defense = client.defense(round_, checkpoint.defense_states.get(index))
        trainer = self._trainer(sent, round_)
        refusal = client.inspect(defense, trainer, sent, round_)
        if refusal is not None:
            return client.refused(refusal, defense)
        if train_on is not sent:
            trainer = self._trainer(train_on, round_)
        return client.train(defense, trainer, train_on, round_, batch=batch, protect=protect)

    def _trainer(self, state: ModelState, round_: int) -> LocalTrainer:
        """Return the process's trainer for models of this kind, with the state loaded, for a round."""
        kind = (state.architecture, state.trainable, state.batch_norm)
        trainer = next((trainer for known, trainer in self._trainers if known == kind), None)
        if trainer is None:
            local = None if self.spec.sends == "gradient" else local_training(self.spec, 0, 1)
            trainer = LocalTrainer(self.build(state), state, task=self.data.info.task, local=local)
            self._trainers.append((kind, trainer))
        trainer.load(state, lr=self.spec.lr_at(round_))
        return trainer

    def _wrap(self, wrapper: Wrapper, module: nn.Module) -> nn.Module:
        return self.defense.wrap_model(module)

    def _privacy(self, rounds: int) -> PrivacySpent | None:
        """Return the weakest guarantee of the clients that do not attack."""
        worst: PrivacySpent | None = None
        for client in range(self.spec.attackers, self.spec.clients):
            local = local_training(self.spec, client, self.n_images(client))
            spent = self.defense.guarantee(
                GuaranteeContext(
                    client=client,
                    n_images=self.n_images(client),
                    rounds=rounds,
                    participation=self.spec.participation_of(client),
                    batch_size=local.batch_size,
                    steps=local.steps,
                )
            )
            if spent is None:
                return None
            if worst is None or spent.epsilon > worst.epsilon:
                worst = spent
        return worst
