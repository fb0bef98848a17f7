"""The stages that trials share: trained once, attacked many times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fl.cards import StageRequest, no_stages
from harness.config.matrix import Matrix
from harness.config.sections import Cell
from harness.plan.stage_requests import defense_stages, judge_stages, resolved_stages

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
    """What tells federations of one matrix apart: variants by index, manipulation, seed, its stages' keys."""

    data: int
    defense: int
    federation: int
    model: int
    manipulation: str
    seed: int
    stages: tuple[str, ...]


@dataclass(frozen=True)
class SharedWork:
    """What some trials share, each once.

    Attributes:
        federations: A cell of each federation.
        requests: The stages of plug-ins and of the judge, by key.
        users: How many trials use a stage, by its kind.
    """

    federations: Mapping[FederationId, Cell]
    requests: Mapping[str, StageRequest]
    users: Mapping[str, int]

    def counts(self) -> list[StageCount]:
        """Return how far stages are shared, federations first."""
        distinct = Counter(request.kind for request in self.requests.values())
        kinds = [StageCount(kind, number, self.users[kind]) for kind, number in sorted(distinct.items())]
        made = len(self.federations)
        return [StageCount(FEDERATION, made, self.users[FEDERATION]), *kinds] if made else kinds


@dataclass(frozen=True, eq=False)
class _Needs:
    """The stages of trials that need the same, told apart from others as an object."""

    requests: tuple[StageRequest, ...]
    kinds: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", frozenset(request.kind for request in self.requests))


class SharedStages:
    """Finds the stages of one matrix's trials.

    What a card asks for is looked at once for all trials that it asks the same for: a million trials that
    attack a thousand models have a thousand stages to resolve.
    """

    def __init__(self, matrix: Matrix) -> None:
        """Take the sections of `matrix`."""
        self._matrix = matrix
        manipulations = [variant.value.manipulation for variant in matrix.pools.threat_model.variants]
        self._manipulations = [each.canonical if each else "" for each in manipulations]
        plugins, pools = matrix.plugins, matrix.pools
        self._attacks = [plugins.attacks.get(v.value.name) for v in pools.attack.variants]
        self._defenses = [plugins.defenses.get(v.value.plugin.name) for v in pools.defense.variants]
        self._judge: dict[tuple[int, int, int], _Needs] = {}
        self._needs: dict[tuple[object, ...], _Needs] = {}

    def of(self, trials: Iterable[tuple[Cell, int]]) -> SharedWork:
        """Return what `trials` share."""
        federations: dict[FederationId, Cell] = {}
        needs: Counter[_Needs] = Counter()
        trained = 0
        for cell, seed in trials:
            federation, needed = self._look(cell, seed)
            if federation is not None:
                federations.setdefault(federation, cell)
                trained += 1
            needs[needed] += 1
        users = Counter({FEDERATION: trained})
        for each, trials_each in needs.items():
            users.update(dict.fromkeys(each.kinds, trials_each))
        requests = {request.key: request for each in needs for request in each.requests}
        return SharedWork(federations, requests, users)

    def _look(self, cell: Cell, seed: int) -> tuple[FederationId | None, _Needs]:
        """Return a trial's federation, if it has one, and the stages that its plug-ins and its judge ask for.

        An attack's stages also depend on the federation, whose model they may be made with, and are checked
        against what is observed.
        """
        attack, defense = self._attacks[cell.attack], self._defenses[cell.defense]
        judging = self._judging(cell, seed)
        if attack.stages is no_stages and defense.stages is no_stages:
            return self._federation(cell, seed, ()), judging
        spec = self._matrix.pools.spec(cell, seed)
        defending = [] if defense.stages is no_stages else defense_stages(spec, defense)
        asked = attack.stages(spec.attack.config, spec)
        stages = tuple(request.key for request in defending)
        federation = self._federation(cell, seed, stages)
        told = [(request.key, request.judge) for request in asked]
        address = (judging, federation, stages, cell.observe, *told)
        if address not in self._needs:
            resolved = resolved_stages(asked, spec, attack)
            self._needs[address] = _Needs((*defending, *resolved, *judging.requests))
        return federation, self._needs[address]

    def _federation(self, cell: Cell, seed: int, stages: tuple[str, ...]) -> FederationId | None:
        if self._matrix.pools.federation[cell.federation] is None:
            return None
        manipulation = self._manipulations[cell.threat_model]
        return FederationId(cell.data, cell.defense, cell.federation, cell.model, manipulation, seed, stages)

    def _judging(self, cell: Cell, seed: int) -> _Needs:
        """Return the judge's stages, which are those of the data and of what is observed."""
        key = (cell.data, cell.observe, cell.recorded)
        if key not in self._judge:
            self._judge[key] = _Needs(tuple(judge_stages(self._matrix.pools.spec(cell, seed))))
        return self._judge[key]
