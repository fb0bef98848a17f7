"""What is known of a partition before it is drawn; for the planner, without NumPy."""

from __future__ import annotations

from fl.specs import ByPatient, Dirichlet, Partition, Shards, Sizes, TaskKind


def images_held(partition: Partition, images: int) -> int:
    """Return how many of the private images some client holds: all, but for `sizes`."""
    return sum(partition.sizes) if isinstance(partition, Sizes) else images


def smallest_client(partition: Partition, images: int, clients: int, groups: int | None = None) -> int:
    """Return how many images every client is sure to hold.

    Args:
        partition: How images are dealt.
        images: Private images.
        clients: Number of clients.
        groups: Number of patients or sources among the images, where known.
    """
    match partition:
        case Shards():
            return partition.shards * (images // (partition.shards * clients))
        case Sizes():
            return min(partition.sizes) if sum(partition.sizes) <= images else 0
        case ByPatient() if not spreads(partition, clients, groups or 0):
            return 1 if (groups or 0) >= clients else 0
        case _:
            return images // clients


def client_sizes(
    partition: Partition, images: int, clients: int, groups: int | None = None
) -> tuple[int, ...] | None:
    """Return how many images each client holds, or None where that depends on the draw.

    Args:
        partition: How images are dealt.
        images: Private images, enough of them (`shortage`).
        clients: Number of clients.
        groups: Number of patients or sources among the images, where known.
    """
    each, left = divmod(images, clients)
    match partition:
        case Sizes():
            return partition.sizes
        case Shards() if images % (partition.shards * clients):
            return None
        case ByPatient() if not spreads(partition, clients, groups or 0):
            return None
        case _:
            return (each + 1,) * left + (each,) * (clients - left)


def spreads(partition: ByPatient, clients: int, groups: int) -> bool:
    """Return whether images of one patient are spread over clients, there being too few patients."""
    return partition.allow_overlap and groups < clients


def without_classes(partition: Partition, kind: TaskKind) -> str | None:
    """Return why images of several labels each cannot be dealt out by class, or None."""
    by_class = isinstance(partition, Dirichlet | Shards) or (
        isinstance(partition, Sizes) and partition.balanced
    )
    if kind != "multilabel" or not by_class:
        return None
    own = "balanced: true" if isinstance(partition, Sizes) else f"partition: {partition.name}"
    return f"expected one class per image for {own}, got a multilabel data set; use partition: iid"


def shortage(partition: Partition, images: int, clients: int, groups: int | None = None) -> str | None:
    """Return why the private part is too small to be dealt out like this, and what to do, or None.

    Args:
        partition: How images are dealt.
        images: Private images.
        clients: Number of clients.
        groups: Number of patients or sources among the images, where known.
    """
    if isinstance(partition, ByPatient):
        if groups is None:
            return (
                "expected a data set that knows its patients for partition: patient, got one without; "
                "use partition: iid"
            )
        if smallest_client(partition, images, clients, groups) < 1 and not partition.allow_overlap:
            return (
                f"expected at least {clients} patients for {clients} clients, got {groups}; lower "
                "federation.clients, or let clients share patients with "
                "partition: {name: patient, allow_overlap: true}"
            )
    if isinstance(partition, Sizes):
        wanted = sum(partition.sizes)
        if wanted > images:
            return (
                f"expected at least {wanted} private images for {clients} clients, got {images}; take a "
                "larger data set, or give each client's number yourself: "
                "partition: {name: sizes, sizes: [...]}"
            )
        return None
    each = 1
    if isinstance(partition, Dirichlet):
        each = partition.min_images
    elif isinstance(partition, Shards):
        each = partition.shards
    if smallest_client(partition, images, clients, groups) < each:
        return (
            f"expected at least {each * clients} private images for {clients} clients ({each} each), got "
            f"{images}; lower federation.clients"
        )
    return None
