"""The server's part of a round: who takes part, how updates are averaged, and the step on the global model.

Federated averaging and federated SGD (McMahan et al. 2017, arXiv 1602.05629, Algorithm 1); the step itself is
`fl.server_optimizers`. Sums are taken inside each chunk of clients in client order and then over chunks in
order, whoever computes them, so that the bits do not depend on the number of workers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fl.seeds import Streams
from fl.server_optimizers import advance, descend
from fl.specs import FederationSpec
from fl.types import ModelState, Tensors, Update

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Chunk:
    """Participants that are summed together.

    Attributes:
        index: The chunk's index; it covers clients `index * spec.chunk` up to the next one's.
        clients: Those of them that take part, in order; at least one.
    """

    index: int
    clients: tuple[int, ...]


def draw_participants(spec: FederationSpec, streams: Streams, round_: int) -> tuple[int, ...]:
    """Return the clients of a round in order, drawn without replacement; those that attack never miss one."""
    first = spec.attackers
    shuffled = torch.randperm(spec.clients - first, generator=streams.torch("participation", round=round_))
    drawn = (first + shuffled[: spec.participants - first]).tolist()
    return (*range(first), *sorted(drawn))


def chunks_of(spec: FederationSpec, clients: Iterable[int]) -> tuple[Chunk, ...]:
    """Divide clients at fixed borders, every `spec.chunk` clients; chunks without clients are left out."""
    members: dict[int, list[int]] = {}
    for client in sorted(clients):
        members.setdefault(client // spec.chunk, []).append(client)
    return tuple(Chunk(index, tuple(clients)) for index, clients in members.items())


class WeightedSum:
    """A running sum of updates, each weighted by its `n_images`."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        self.n_images = 0

    def add(self, update: Update) -> None:
        """Add one update."""
        _accumulate(self.tensors, update.tensors, update.n_images)
        _accumulate(self.buffers, update.buffers, update.n_images)
        self.n_images += update.n_images

    def merge(self, tensors: Tensors, buffers: Tensors, n_images: int) -> None:
        """Add another sum."""
        _accumulate(self.tensors, tensors, 1)
        _accumulate(self.buffers, buffers, 1)
        self.n_images += n_images


def mean_update(total: WeightedSum, spec: FederationSpec) -> Update | None:
    """Return the weighted mean, or None if no images are behind it."""
    if not total.n_images:
        return None
    return Update(
        kind=spec.sends,
        tensors={name: tensor / total.n_images for name, tensor in total.tensors.items()},
        buffers={name: tensor / total.n_images for name, tensor in total.buffers.items()},
        n_images=total.n_images,
    )


def aggregate(updates: Sequence[Update], spec: FederationSpec) -> Update | None:
    """Return the mean of updates, weighted by `n_images` and summed in the given order, or None."""
    total = WeightedSum()
    for update in updates:
        total.add(update)
    return mean_update(total, spec)


def server_step(
    model: ModelState, mean: Update, spec: FederationSpec, *, round_: int = 0, state: Tensors | None = None
) -> tuple[ModelState, Tensors]:
    """Return the next global model and the server optimizer's state.

    FedSGD: theta - lr * gradient; FedAvg and FedProx: theta + server_lr * delta; FedAdam and FedAdagrad:
    `fl.server_optimizers`; buffers: the clients' mean.

    Args:
        model: The global model.
        mean: The weighted mean of the updates.
        spec: Names the algorithm.
        round_: The round's number.
        state: The server optimizer's state after the last round; None before the first.
    """
    left: Tensors = state or {}
    if mean.kind == "gradient":
        moved = descend(spec, model.tensors, mean.tensors, round_=round_)
    else:
        moved, left = advance(spec, model.tensors, mean.tensors, left)
    return dataclasses.replace(model, tensors={**model.tensors, **moved, **mean.buffers}), left


def _accumulate(total: dict[str, Tensor], tensors: Tensors, weight: int) -> None:
    for name, tensor in tensors.items():
        if name in total:
            total[name].add_(tensor, alpha=weight)
        else:
            total[name] = tensor * weight
