"""How small the batches of a federation get, known without training it; read by the planner without torch."""

from __future__ import annotations

import math

from fl.data.partition_bounds import client_sizes
from fl.setting import DataInfo
from fl.specs import FederationSpec, Sizes


def smallest_batch(spec: FederationSpec, data: DataInfo, *, trained: int) -> int | None:
    """Return the smallest batch that is sure to be trained on (with the default batch sampler).

    Args:
        spec: The federation.
        data: What it is given.
        trained: Number of clients that train; which of them do may depend on the draw.

    Returns:
        Its size, or None where that depends on the draw, or nobody trains.
    """
    sizes = client_sizes(spec.partition, data.images["private"], spec.clients, data.groups)
    if spec.attacker is not None and not isinstance(spec.partition, Sizes):
        sizes = None  # how many images of each class there are is not known
    if sizes is None or not trained:
        return None
    smallest = sorted(_smallest(spec, client, n) for client, n in enumerate(sizes))
    return smallest[spec.clients - trained]  # the draw may spare the clients with smaller ones


def _smallest(spec: FederationSpec, client: int, n: int) -> int:
    """Return the smallest batch that a client with n images trains on when it trains."""
    size = spec.batch_size_of(client)
    ends_early = spec.local_steps is not None and spec.local_steps < math.ceil(n / size)
    if spec.sends == "gradient" or ends_early:
        return min(n, size)  # the first of an epoch
    return n % size or size
