"""Dealing out the private part among the clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fl.data.partition_bounds import shortage, spreads
from fl.errors import UsageError
from fl.specs import ByPatient, Dirichlet, Partition, Shards, Sizes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Indices = NDArray[np.int64]
    Groups = Sequence[str]


def assign(
    partition: Partition,
    labels: ArrayLike,
    *,
    clients: int,
    stream: np.random.Generator,
    groups: Groups | None = None,
) -> tuple[Indices, ...]:
    """Return each client's images: positions in increasing order, disjoint.

    Together the clients hold every image, but for `sizes`. With `iid`, `dirichlet` and spread-out patients
    every client gets floor(N / clients) images, the first N mod clients one more.

    Args:
        partition: How to deal.
        labels: The N classes; `N` or `N x 1`.
        clients: Number of clients.
        stream: The stream `partition`.
        groups: The patient or source of each image, where known.

    Raises:
        UsageError: If there are too few images or patients, or classes are asked for where images do not have
            exactly one each.
    """
    labels = np.asarray(labels)
    distinct = None if groups is None else len(set(groups))
    reason = shortage(partition, len(labels), clients, distinct)
    if reason is not None:
        raise UsageError(reason)
    match partition:
        case Dirichlet():
            sizes = _equal_sizes(len(labels), clients)
            return _dirichlet(_classes(labels, partition.name), sizes, alpha=partition.alpha, stream=stream)
        case Shards():
            return _shards(_classes(labels, partition.name), clients, partition.shards, stream)
        case Sizes(balanced=True):
            return _balanced(_classes(labels, partition.name), partition.sizes, stream)
        case Sizes():
            return _cut(stream.permutation(len(labels)), partition.sizes)
        case ByPatient():
            assert groups is not None
            return _by_patient(partition, np.asarray(groups), clients, stream)
        case _:
            return _cut(stream.permutation(len(labels)), _equal_sizes(len(labels), clients))


def shares_groups(hands: Sequence[Indices], groups: Groups | None) -> bool | None:
    """Return whether images of one patient or source lie on more than one client; None where unknown."""
    if groups is None:
        return None
    holders = [(groups[position], client) for client, hand in enumerate(hands) for position in hand.tolist()]
    return len(set(holders)) > len({group for group, _ in holders})


def _equal_sizes(images: int, clients: int) -> Indices:
    sizes = np.full(clients, images // clients)
    sizes[: images % clients] += 1
    return sizes


def _cut(order: Indices, sizes: Sequence[int] | Indices) -> tuple[Indices, ...]:
    """Give the first images of an order to the first client, and so on; what is left goes to nobody."""
    parts = np.split(order, np.cumsum(sizes))[: len(sizes)]
    return tuple(np.sort(part) for part in parts)


def _classes(labels: NDArray[Any], name: str) -> Indices:
    if labels.ndim > 1 and labels[0].size > 1:
        raise UsageError(
            f"expected one class per image for partition: {name}, got labels of shape {labels.shape}; "
            "use partition: iid"
        )
    return np.unique(labels, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _shards(classes: Indices, clients: int, shards: int, stream: np.random.Generator) -> tuple[Indices, ...]:
    """Deal shards of images sorted by class (McMahan et al. 2017, arXiv 1602.05629, section 3).

    Images of a class are in random order. Shards that cannot be equal differ by one image.
    """
    shuffled = stream.permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    pieces = np.array_split(by_class, clients * shards)
    dealt = stream.permutation(len(pieces)).reshape(clients, shards)
    return tuple(np.sort(np.concatenate([pieces[piece] for piece in hand])) for hand in dealt)


def _balanced(classes: Indices, sizes: Sequence[int], stream: np.random.Generator) -> tuple[Indices, ...]:
    """Deal each client's images class by class in turn, over the classes that are left, in client order."""
    decks = [list(stream.permutation(np.flatnonzero(classes == c))) for c in range(int(classes.max()) + 1)]
    hands = []
    for size in sizes:
        hand: list[int] = []
        while len(hand) < size:
            left = [label for label in stream.permutation(len(decks)) if decks[label]]
            hand += [decks[label].pop() for label in left[: size - len(hand)]]
        hands.append(np.sort(np.asarray(hand, dtype=np.int64)))
    return tuple(hands)


def _by_patient(
    partition: ByPatient, groups: NDArray[Any], clients: int, stream: np.random.Generator
) -> tuple[Indices, ...]:
    """Deal whole groups, the largest first, each to the client with the fewest images so far.

    Groups of equal size come in random order. Where there are fewer groups than clients, and only where that
    is allowed, the images are lined up group by group and cut into equal parts.
    """
    named = np.unique(groups, return_inverse=True)[1].reshape(-1)
    members = [stream.permutation(np.flatnonzero(named == group)) for group in range(int(named.max()) + 1)]
    shuffled = [members[group] for group in stream.permutation(len(members))]
    if spreads(partition, clients, len(members)):
        return _cut(np.concatenate(shuffled), _equal_sizes(len(groups), clients))
    hands: list[list[int]] = [[] for _ in range(clients)]
    for images in sorted(shuffled, key=len, reverse=True):
        min(hands, key=len).extend(images.tolist())
    return tuple(np.sort(np.asarray(hand, dtype=np.int64)) for hand in hands)


def _dirichlet(
    classes: Indices, sizes: Indices, *, alpha: float, stream: np.random.Generator
) -> tuple[Indices, ...]:
    """Deal by class shares after Hsu et al. 2019 (arXiv 1909.06335, section 3).

    As there, each client draws class shares q ~ Dir(alpha * C * p), with p the shares of the C classes in
    all images, and all clients hold equally many images. (Hsu et al. write the concentration alpha * p, so
    their alpha is C times this one; for balanced classes this is Dir(alpha, ..., alpha), as in later work.)
    The paper leaves open what happens when a class runs out. Here clients take one image each in turn, in a
    fresh random order every turn, from their q over the classes that are left; so shortage falls on all
    clients alike.
    """
    counts = np.bincount(classes)
    prior = counts / len(classes)
    shares = stream.dirichlet(np.maximum(alpha * len(counts) * prior, np.finfo(float).tiny), size=len(sizes))
    decks = [list(stream.permutation(np.flatnonzero(classes == label))) for label in range(len(counts))]
    left = counts.copy()
    hands: list[list[int]] = [[] for _ in sizes]
    for turn in range(int(sizes.max())):
        for client in stream.permutation(np.flatnonzero(sizes > turn)):
            label = _draw(shares[client] * (left > 0), left, stream.random())
            left[label] -= 1
            hands[client].append(decks[label].pop())
    return tuple(np.sort(np.asarray(hand, dtype=np.int64)) for hand in hands)


def _draw(shares: NDArray[np.float64], left: Indices, uniform: float) -> int:
    """Return a class by inverse transform; by what is left where the client wants nothing that is."""
    weights = shares if shares.sum() > 0 else left.astype(np.float64)
    cumulative = np.cumsum(weights)
    label = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return min(label, int(np.flatnonzero(weights)[-1]))
