"""The stages that trials share: trained once, attacked many times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from fl.cards import StageRequest, no_stages
from harness.config.matrix import Matrix
from harness.config.sections import Cell
from harness.plan.stage_requests import attack_stages, defense_stages, judge_stages

FEDERATION = "federation"


class StageCount(NamedTuple):
    """How far one kind of stage is shared.

    Attributes:
        kind: `federation`, or the word of a plug-in's or the judge's stage, such as `prior`, `evaluator`.
        distinct: How many have to be made.
        trials: How many trials use one.
    """

    kind: str
    distinct: int
    trials: int


class FederationId(NamedTuple):
    """What tells federations of one matrix apart: variants by index, the manipulation, and the seed."""

    data: int
    defense: int
    federation: int
    model: int
    manipulation: str
    seed: int


class SharedStages:
    """Finds the stages of one matrix's trials."""

    def __init__(self, matrix: Matrix) -> None:
        """Take the sections of `matrix`."""
        self._matrix = matrix
        manipulations = [variant.value.manipulation for variant in matrix.pools.threat_model.variants]
        self._manipulations = [each.canonical if each else "" for each in manipulations]
        plugins, pools = matrix.plugins, matrix.pools
        self._attacks = [plugins.attacks.get(v.value.name) for v in pools.attack.variants]
        self._defenses = [plugins.defenses.get(v.value.plugin.name) for v in pools.defense.variants]
        self._judge: dict[tuple[int, int, int], list[StageRequest]] = {}

    def federation(self, cell: Cell, seed: int) -> FederationId | None:
        """Return the federation of a trial; None for a recorded observation."""
        if self._matrix.pools.federation[cell.federation] is None:
            return None
        manipulation = self._manipulations[cell.threat_model]
        return FederationId(cell.data, cell.defense, cell.federation, cell.model, manipulation, seed)

    def requests(self, cell: Cell, seed: int) -> list[StageRequest]:
        """Return the stages that a trial's plug-ins and its judge ask for."""
        attack, defense = self._attacks[cell.attack], self._defenses[cell.defense]
        judge = self._judge_requests(cell, seed)
        if attack.stages is no_stages and defense.stages is no_stages:
            return judge
        spec = self._matrix.pools.spec(cell, seed)
        return [*defense_stages(spec, defense), *attack_stages(spec, attack), *judge]

    def _judge_requests(self, cell: Cell, seed: int) -> list[StageRequest]:
        """Return the judge's stages, which are those of the data and of what is observed."""
        key = (cell.data, cell.observe, cell.recorded)
        if key not in self._judge:
            self._judge[key] = judge_stages(self._matrix.pools.spec(cell, seed))
        return self._judge[key]

    def counts(self, trials: Iterable[tuple[Cell, int]]) -> list[StageCount]:
        """Return how far the stages of `trials` are shared, federations first."""
        federations: set[FederationId] = set()
        keys: dict[str, set[str]] = {}
        users: Counter[str] = Counter()
        for cell, seed in trials:
            federation = self.federation(cell, seed)
            if federation is not None:
                federations.add(federation)
                users[FEDERATION] += 1
            requests = self.requests(cell, seed)
            for request in requests:
                keys.setdefault(request.kind, set()).add(request.key)
            users.update({request.kind for request in requests})
        found = [StageCount(FEDERATION, len(federations), users[FEDERATION])] if federations else []
        return found + [StageCount(kind, len(made), users[kind]) for kind, made in sorted(keys.items())]
