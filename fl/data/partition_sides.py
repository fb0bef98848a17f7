"""Dealing out the private part between clients that attack and the others, each with classes of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fl.data.partition import assign
from fl.errors import UsageError
from fl.specs import FederationSpec, Partition, Sizes, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fl.data.base import Part
    from fl.participant import Participant

    Indices = NDArray[np.int64]


def deal(
    spec: FederationSpec, private: Part, *, task: Task, stream: np.random.Generator
) -> tuple[Indices, ...]:
    """Return each client's images: positions in increasing order, disjoint.

    Without an attacker this is `fl.data.partition.assign`. With one, the images of classes that only one side
    holds are that side's. Those of classes that both hold are divided at random, each side getting its share
    of the clients; those of classes that neither holds are nobody's. Then each side deals out its images.

    Args:
        spec: How to deal, among whom.
        private: The private part.
        task: What its labels are classes of.
        stream: The stream `partition`.

    Raises:
        UsageError: If a side has too few images, or classes are asked for that the task does not have.
    """
    attacker = spec.attacker
    if attacker is None:
        return assign(
            spec.partition, private.labels, clients=spec.clients, stream=stream, groups=private.groups
        )
    if (reason := attacker.unfit(task.kind, task.classes)) is not None:
        raise UsageError(reason)
    classes = np.asarray(private.labels)
    sides = _sides(attacker, classes, spec.clients, stream)
    numbers = (attacker.clients, spec.clients - attacker.clients)
    partitions = _partitions(spec.partition, attacker.clients)
    hands: list[Indices] = []
    for who, own, clients, partition in zip(("attackers", "others"), sides, numbers, partitions, strict=True):
        try:
            dealt = assign(partition, classes[own], clients=clients, stream=stream)
        except UsageError as error:
            raise UsageError(f"federation.attacker: of the classes of the {who}, {error}") from None
        hands += [own[hand] for hand in dealt]
    return tuple(hands)


def _sides(
    attacker: Participant, classes: Indices, clients: int, stream: np.random.Generator
) -> tuple[Indices, Indices]:
    """Return the images of the attackers and of the others: positions in increasing order."""
    attacked = np.isin(classes, attacker.labels)
    others = np.ones_like(attacked) if attacker.others is None else np.isin(classes, attacker.others)
    shared = stream.permutation(np.flatnonzero(attacked & others))
    cut = (2 * len(shared) * attacker.clients + clients) // (2 * clients)  # rounded
    own = np.concatenate([np.flatnonzero(attacked & ~others), shared[:cut]])
    rest = np.concatenate([np.flatnonzero(others & ~attacked), shared[cut:]])
    return np.sort(own), np.sort(rest)


def _partitions(partition: Partition, attackers: int) -> tuple[Partition, Partition]:
    """Return how either side deals: the sizes of its own clients, else both alike."""
    if not isinstance(partition, Sizes):
        return partition, partition
    sizes = partition.sizes
    first = partition.model_copy(update={"sizes": sizes[:attackers]})
    return first, partition.model_copy(update={"sizes": sizes[attackers:]})
