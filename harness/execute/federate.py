"""A federation's rounds as resumable steps, the same for one process and for a server with many clients.

Every finished round is one atomic checkpoint; its JSON carries the history of utility so far, so a federation
that lost its processes goes on from there. The summary artifact, stored last, says that all rounds are done.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fl.types import Artifact
from harness.metrics.utility import utility

if TYPE_CHECKING:
    from fl.checkpoints import Checkpoint, ChunkResult, RoundRecord
    from fl.federation import Federation
    from fl.specs import TrialSpec
    from harness.execute.materials import Materials
    from harness.execute.work import FederationItem
    from harness.store.artifacts import ArtifactStore

Row = dict[str, Any]


@dataclass(frozen=True)
class FederationState:
    """Where a federation stands.

    Attributes:
        round: The round to train next.
        rounds: How many there are.
        chunks: Indices of the chunks to train in that round, in order; empty when all rounds are done.
    """

    round: int
    rounds: int
    chunks: tuple[int, ...]

    @property
    def done(self) -> bool:
        """Whether the summary is stored."""
        return self.round >= self.rounds


def state_of(materials: Materials, store: ArtifactStore, item: FederationItem) -> FederationState:
    """Return where a federation stands, from what is stored; completes one that lacks only its summary."""
    assert item.spec.federation is not None
    rounds = item.spec.federation.rounds
    if store.has(item.key):
        return FederationState(rounds, rounds, ())
    number = materials.latest_round(item.spec)
    if number == rounds:
        _store_summary(materials, store, item)
        return FederationState(rounds, rounds, ())
    return _at(materials.federation(item.spec), number, rounds)


def train_chunk(materials: Materials, item: FederationItem, round: int, chunk: int) -> ChunkResult:
    """Train one chunk of a round's participants."""
    federation = materials.federation(item.spec)
    wanted = next(c for c in federation.chunks(round) if c.index == chunk)
    return federation.train_chunk(materials.checkpoint(item.spec, round), wanted)


def finish_round(
    materials: Materials, store: ArtifactStore, item: FederationItem, round: int, results: list[ChunkResult]
) -> FederationState:
    """Aggregate a round's chunks in order, evaluate, and store the next checkpoint."""
    federation = materials.federation(item.spec)
    before = materials.checkpoint(item.spec, round)
    history = _history(materials, item.spec, before)
    after, record = federation.finish_round(before, sorted(results, key=lambda r: r.chunk))
    row = {**_utility(federation, after), **_recorded(record), "round": after.round}
    materials.store_checkpoint(item.spec, after, [*history, row])
    assert item.spec.federation is not None
    rounds = item.spec.federation.rounds
    if after.round == rounds:
        _store_summary(materials, store, item)
        return FederationState(rounds, rounds, ())
    return _at(federation, after.round, rounds)


def run_federation(materials: Materials, store: ArtifactStore, item: FederationItem) -> None:
    """Run all remaining rounds in this process.

    Raises:
        TimeoutError: If rounds remain when the time is up; those that are done stay done.
    """
    limit = math.inf if item.timeout_s is None else item.timeout_s
    began = time.monotonic()
    state = state_of(materials, store, item)
    while not state.done:
        if time.monotonic() - began > limit:
            raise TimeoutError(f"{state.round} of {state.rounds} rounds within {limit:g} s")
        results = [train_chunk(materials, item, state.round, chunk) for chunk in state.chunks]
        state = finish_round(materials, store, item, state.round, results)


def _at(federation: Federation, round: int, rounds: int) -> FederationState:
    return FederationState(round, rounds, tuple(chunk.index for chunk in federation.chunks(round)))


def _utility(federation: Federation, checkpoint: Checkpoint) -> Row:
    logits, labels = federation.predict(checkpoint)
    columns = asdict(utility(logits, labels, federation.data.info.task))
    return {**columns, "null_reasons": json.dumps(columns["null_reasons"], sort_keys=True)}


def _recorded(record: RoundRecord) -> Row:
    norms, privacy = [n for n in record.update_norms if math.isfinite(n)], record.privacy
    return {
        "participants": record.participants,
        "refused": len(record.refused),
        "update_norm_mean": statistics.fmean(norms) if norms else None,
        "update_norm_max": max(norms, default=None),
        "train_loss": record.train_loss,
        "bytes_up": record.bytes_up,
        "bytes_down": record.bytes_down,
        "epsilon": privacy and privacy.epsilon,
        "delta": privacy and privacy.delta,
        "privacy_unit": privacy and privacy.unit,
        "accountant": privacy and privacy.accountant,
    }


def _history(materials: Materials, spec: TrialSpec, checkpoint: Checkpoint) -> list[Row]:
    if checkpoint.round:
        return materials.history(spec, checkpoint.round)
    return [{**_utility(materials.federation(spec), checkpoint), "round": 0}]


def _store_summary(materials: Materials, store: ArtifactStore, item: FederationItem) -> None:
    assert item.spec.federation is not None
    rounds = item.spec.federation.rounds
    history: list[Any] = _history(materials, item.spec, materials.checkpoint(item.spec, rounds))
    store.put(item.key, Artifact({}, {"rounds": history}))
