"""What a partition guarantees before it is drawn, for the planner."""

from __future__ import annotations

from fl.specs import Partition


def smallest_client(partition: Partition, images: int, clients: int) -> int:
    """Return how many images every client is sure to hold.

    Both partitions deal out equally (`fl.data.partition`), so the number is exact: floor(images / clients).
    """
    return images // clients
