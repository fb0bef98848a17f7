"""How many targets a federation offers, known without training it; read by the planner without torch."""

from __future__ import annotations

from fl.specs import FederationSpec, ObservationKind, ObserveSpec, ThreatModel


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
        images_private: Images that all clients hold together.
        labels: Classes (or outputs of a multilabel task).
    """
    if observe.kind == "global_model":
        return labels
    clients = min(spec.participants, images_private)
    if observe.kind == "aggregate":
        return clients // observe.clients
    if not _every_batch(spec, observe):
        return clients
    # n images make ceil(n / b) batches: at best every client has one image beyond full batches
    return (images_private + clients * (spec.batch_size - 1)) // spec.batch_size


def _every_batch(spec: FederationSpec, observe: ObserveSpec) -> bool:
    return spec.algorithm == "fedsgd" and observe.round == 0
