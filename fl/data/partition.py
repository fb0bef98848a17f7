"""Dealing out the private part among the clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fl.data.partition_bounds import smallest_client
from fl.errors import UsageError
from fl.specs import Dirichlet, Partition

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Indices = NDArray[np.int64]


def assign(
    partition: Partition, labels: ArrayLike, *, clients: int, stream: np.random.Generator
) -> tuple[Indices, ...]:
    """Return each client's images: positions in increasing order, disjoint, and complete together.

    Every client gets floor(N / clients) images; the first N mod clients get one more.

    Args:
        partition: How to deal.
        labels: The N classes; `N` or `N x 1`.
        clients: Number of clients.
        stream: The stream `partition`.

    Raises:
        UsageError: If there are too few images, or `dirichlet` is asked for without one class per image.
    """
    labels = np.asarray(labels)
    needed = partition.min_images if isinstance(partition, Dirichlet) else 1
    if smallest_client(partition, len(labels), clients) < needed:
        raise UsageError(
            f"expected at least {needed * clients} private images for {clients} clients ({needed} each), got "
            f"{len(labels)}; lower federation.clients"
        )
    sizes = np.full(clients, len(labels) // clients)
    sizes[: len(labels) % clients] += 1
    if isinstance(partition, Dirichlet):
        return _dirichlet(_classes(labels), sizes, alpha=partition.alpha, stream=stream)
    borders = np.cumsum(sizes)[:-1]
    return tuple(np.sort(part) for part in np.split(stream.permutation(len(labels)), borders))


def _classes(labels: NDArray[Any]) -> Indices:
    if labels.ndim > 1 and labels[0].size > 1:
        raise UsageError(
            f"expected one class per image for partition: dirichlet, got labels of shape {labels.shape}; "
            "use partition: iid"
        )
    return np.unique(labels, return_inverse=True)[1].reshape(-1).astype(np.int64)


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
