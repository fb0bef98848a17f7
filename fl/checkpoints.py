"""What a federation keeps between rounds and passes between its parts, and the record of a round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from fl.client import ClientRecord
from fl.encoding import model_from_json, model_to_json, prefixed, under
from fl.hooks import PrivacySpent
from fl.types import Artifact, ModelState, Tensors

if TYPE_CHECKING:
    from torch import Tensor

    from fl.specs import JSON


@dataclass(frozen=True)
class Checkpoint:
    """A federation at the start of a round.

    Attributes:
        round: The round that begins; 0 is the untrained model.
        model: The global model.
        defense_states: State of each client's defense, by client, once it has taken part.
        server_state: State of the server's optimizer; empty where it has none.
    """

    round: int
    model: ModelState
    defense_states: Mapping[int, Tensors]
    server_state: Tensors = field(default_factory=dict)

    def to_artifact(self) -> Artifact:
        """Return it as tensors and JSON, bit for bit."""
        return Artifact(
            tensors={
                **prefixed("model/", self.model.tensors),
                **_states_to_tensors(self.defense_states),
                **prefixed("server/", self.server_state),
            },
            data={
                "round": self.round,
                "model": model_to_json(self.model),
                "defended": _clients(self.defense_states),
            },
        )

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Checkpoint:
        """Return the checkpoint that `to_artifact` wrote."""
        data: Any = artifact.data
        return cls(
            round=data["round"],
            model=model_from_json(data["model"], under("model/", artifact.tensors)),
            defense_states=_states_from_tensors(data["defended"], artifact.tensors),
            server_state=under("server/", artifact.tensors),
        )


@dataclass(frozen=True)
class ClientSummary:
    """What the server notes about one participant.

    Attributes:
        client: Its index.
        norm: l2 norm of its update; NaN if it refused.
        loss: Its mean training loss; NaN if there is none.
        n_images: Images it reports.
        bytes_up: Bytes it sends.
        bytes_down: Bytes it is sent.
        refusal: Why it refused, or None.
    """

    client: int
    norm: float
    loss: float
    n_images: int
    bytes_up: int
    bytes_down: int
    refusal: str | None


@dataclass(frozen=True)
class ChunkResult:
    """The sum of one chunk's updates, with all that the round needs besides.

    Attributes:
        round: The round.
        chunk: The chunk's index.
        sums: Sum of the updates weighted by `n_images`, by parameter name; empty if all refused.
        buffers: The same of their buffers.
        n_images: Sum of the weights.
        clients: One summary per participant of the chunk, in client order.
        defense_states: State of each participant's defense afterwards.
    """

    round: int
    chunk: int
    sums: Tensors
    buffers: Tensors
    n_images: int
    clients: tuple[ClientSummary, ...]
    defense_states: Mapping[int, Tensors]

    def to_artifact(self) -> Artifact:
        """Return it as tensors and JSON, bit for bit."""
        return Artifact(
            tensors={
                **prefixed("sums/", self.sums),
                **prefixed("buffers/", self.buffers),
                **_states_to_tensors(self.defense_states),
                "norms": _float64([c.norm for c in self.clients]),
                "losses": _float64([c.loss for c in self.clients]),
            },
            data={
                "round": self.round,
                "chunk": self.chunk,
                "n_images": self.n_images,
                "clients": [
                    [client.client, client.n_images, client.bytes_up, client.bytes_down, client.refusal]
                    for client in self.clients
                ],
                "defended": _clients(self.defense_states),
            },
        )

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> ChunkResult:
        """Return the result that `to_artifact` wrote."""
        data: Any = artifact.data
        numbers = zip(
            artifact.tensors["norms"].tolist(),
            artifact.tensors["losses"].tolist(),
            data["clients"],
            strict=True,
        )
        return cls(
            round=data["round"],
            chunk=data["chunk"],
            sums=under("sums/", artifact.tensors),
            buffers=under("buffers/", artifact.tensors),
            n_images=data["n_images"],
            clients=tuple(
                ClientSummary(client, norm, loss, *rest) for norm, loss, (client, *rest) in numbers
            ),
            defense_states=_states_from_tensors(data["defended"], artifact.tensors),
        )


@dataclass(frozen=True)
class RoundRecord:
    """One finished round, for the `rounds/` table.

    Attributes:
        round: Its number.
        participants: Number of clients drawn.
        refused: Those of them that refused to train.
        update_norms: l2 norms of the updates sent, in client order.
        train_loss: Mean of the clients' training losses weighted by their images, or None if there is none.
        bytes_up: Bytes of all updates.
        bytes_down: Bytes of all models sent.
        privacy: The largest epsilon spent so far by any client, or None if the defense gives no guarantee.
    """

    round: int
    participants: int
    refused: tuple[int, ...]
    update_norms: tuple[float, ...]
    train_loss: float | None
    bytes_up: int
    bytes_down: int
    privacy: PrivacySpent | None


def summarise(record: ClientRecord, sent: ModelState) -> ClientSummary:
    """Return what the server notes about a client that was sent a model."""
    update = record.update
    return ClientSummary(
        client=record.client,
        norm=math.nan if update is None else _norm(update.tensors),
        loss=math.nan if record.loss is None else record.loss,
        n_images=0 if update is None else update.n_images,
        bytes_up=0 if update is None else _n_bytes(update.tensors) + _n_bytes(update.buffers),
        bytes_down=_n_bytes(sent.tensors),
        refusal=None if record.refusal is None else record.refusal.reason,
    )


def round_record(round_: int, clients: Sequence[ClientSummary], privacy: PrivacySpent | None) -> RoundRecord:
    """Return the record of a finished round from the summaries of its participants, in client order."""
    trained = [c for c in clients if c.refusal is None]
    weighted = [(c.loss, c.n_images) for c in trained if not math.isnan(c.loss)]
    images = sum(n for _, n in weighted)
    return RoundRecord(
        round=round_,
        participants=len(clients),
        refused=tuple(c.client for c in clients if c.refusal is not None),
        update_norms=tuple(c.norm for c in trained),
        train_loss=math.fsum(loss * n for loss, n in weighted) / images if images else None,
        bytes_up=sum(c.bytes_up for c in clients),
        bytes_down=sum(c.bytes_down for c in clients),
        privacy=privacy,
    )


def _norm(tensors: Tensors) -> float:
    norms = [torch.linalg.vector_norm(t, dtype=torch.float64) for t in tensors.values()]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


def _n_bytes(tensors: Tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _float64(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def _clients(states: Mapping[int, Tensors]) -> list[JSON]:
    return list(states)


def _states_to_tensors(states: Mapping[int, Tensors]) -> dict[str, Tensor]:
    return {
        f"defense/{client}/{name}": tensor
        for client, state in states.items()
        for name, tensor in state.items()
    }


def _states_from_tensors(clients: list[int], tensors: Tensors) -> dict[int, Tensors]:
    return {client: under(f"defense/{client}/", tensors) for client in clients}
