"""How many targets a federation offers, known without training it; read by the planner without torch."""

from __future__ import annotations

import math

from fl.data.partition_bounds import images_held
from fl.specs import FederationSpec, ObservationKind, ObserveSpec, Sizes, ThreatModel


def unobservable(threat_model: ThreatModel, kind: ObservationKind) -> str | None:
    """Return why this adversary never sees such an observation, or None."""
    if threat_model.position == "participant" and kind != "global_model":
        return "a participant sees global models, not the updates of others (observe.kind: global_model)"
    return None


def most_candidates(spec: FederationSpec, observe: ObserveSpec, *, images_private: int, labels: int) -> int:
    """Return the largest number of targets there can be (with the default batch sampler).

    Args:
        spec: The federation.
        observe: What is seen.
        images_private: Images of the private part.
        labels: Classes (or outputs of a multilabel task).
    """
    if observe.kind == "global_model":
        return labels if spec.attacker is None else spec.attacker.targets(labels)
    images = images_held(spec.partition, images_private)
    clients = min(spec.participants, images)
    if observe.kind == "aggregate":
        return clients // observe.clients
    if not _every_batch(spec, observe):
        return clients
    if isinstance(spec.partition, Sizes):
        batches = [math.ceil(n / spec.batch_size_of(c)) for c, n in enumerate(spec.partition.sizes)]
        return sum(sorted(batches)[-clients:])
    # n images make ceil(n / b) batches: at best every client has one image beyond full batches
    smallest = min(spec.batch_sizes or (spec.batch_size,))
    return (images + clients * (smallest - 1)) // smallest


def _every_batch(spec: FederationSpec, observe: ObserveSpec) -> bool:
    return spec.sends == "gradient" and observe.round == 0
