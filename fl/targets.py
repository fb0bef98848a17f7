"""What an attack run can be after in a federation, and which of it a trial attacks.

At round 0, where nothing is trained yet, every batch of a client's local epoch is a possible FedSGD update
and so a candidate; later there is one candidate per participant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fl.errors import UsageError
from fl.federation import Federation
from fl.specs import ObservationKind, ObserveSpec


@dataclass(frozen=True)
class Target:
    """What one attack run is after.

    Attributes:
        id: Unique among what is seen of a federation in one round; names no defense and no attack. That of a
            label names no round either, so that all rounds have the same labels drawn, in the same order, and
            are attacked with the same draws.
        kind: Kind of observation.
        rounds: Rounds that the adversary sees, in order; the last one is attacked.
        clients: Whose updates; empty for `global_model`.
        batch: Which batch of the local epoch (FedSGD at round 0), else None.
        label: The class to recover (`global_model`), else None.
    """

    id: str
    kind: ObservationKind
    rounds: tuple[int, ...]
    clients: tuple[int, ...] = ()
    batch: int | None = None
    label: int | None = None

    @property
    def round(self) -> int:
        """The round that is attacked."""
        return self.rounds[-1]


def candidates(federation: Federation, spec: ObserveSpec) -> tuple[Target, ...]:
    """Return every possible target, in a fixed order.

    Clients and batches without images are no targets. Aggregates are disjoint sets of participants, so that
    no two targets share an image; their composition is drawn from the stream `targets`. Labels are those of
    images that clients hold which do not attack.
    """
    if spec.kind == "global_model":
        return tuple(
            Target(f"label{label}", spec.kind, spec.rounds_seen, label=label)
            for label in sorted(set().union(*labels_of(federation, federation.held_by_others)))
        )
    round_, rounds = spec.round, spec.rounds_seen
    sizes = {c: federation.batch_sizes(round_, c) for c in federation.participants(round_)}
    one_batch = federation.spec.sends == "gradient"
    if one_batch and (round_ > 0 or spec.kind == "aggregate"):
        sizes = {client: batches[:1] for client, batches in sizes.items()}
    holders = [client for client, batches in sizes.items() if any(batches)]
    if spec.kind == "aggregate":
        return _aggregates(federation, spec, holders)
    if one_batch and round_ == 0:
        return tuple(
            Target(f"round0-client{client}-batch{batch}", "update", rounds, (client,), batch)
            for client in holders
            for batch, size in enumerate(sizes[client])
            if size
        )
    return tuple(Target(f"round{round_}-client{c}", "update", rounds, (c,)) for c in holders)


def draw_targets(federation: Federation, spec: ObserveSpec, targets: int) -> tuple[Target, ...]:
    """Draw targets without replacement; the first k of N are those of every N >= k.

    Each candidate has its own place in the draw, given by its id in the stream `targets`, so a defense whose
    sampler leaves a candidate out does not move the others, and labels have the same places at every round.

    Raises:
        UsageError: If there are fewer candidates than targets.
    """
    found = candidates(federation, spec)
    if len(found) < targets:
        more = "raise federation.participation or federation.clients"
        if spec.kind == "global_model":
            more = (
                "let other clients hold images of more classes (data.private_labels, "
                "federation.attacker.others)"
            )
        raise UsageError(
            f"expected at least {targets} targets to observe ({spec.kind}, round {spec.last_round}), got "
            f"{len(found)}; lower targets:, or {more}"
        )
    drawn = sorted(found, key=lambda target: federation.streams.entropy("targets", target=target.id))
    return tuple(drawn[:targets])


def labels_of(federation: Federation, positions: Sequence[int]) -> list[set[int]]:
    """Return the classes (multilabel: the positive outputs) of private images."""
    labels = federation.data.part("private").labels[list(positions)]
    if federation.data.info.task.kind == "multilabel":
        return [set(row.nonzero().flatten().tolist()) for row in labels]
    return [{int(label)} for label in labels.flatten()]


def _aggregates(federation: Federation, spec: ObserveSpec, holders: Sequence[int]) -> tuple[Target, ...]:
    def place(client: int) -> int:
        return federation.streams.entropy("targets", round=spec.round, client=client)

    shuffled, size = sorted(holders, key=place), spec.clients
    return tuple(
        Target(
            f"round{spec.round}-set{number}",
            "aggregate",
            (spec.round,),
            tuple(sorted(shuffled[number * size : (number + 1) * size])),
        )
        for number in range(len(shuffled) // size)
    )
