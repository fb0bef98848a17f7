"""From trials to work items: what must come first, what can be solved together, what is ready."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from attacks import ATTACKS
from attacks.catalog import DlgConfig
from attacks.engine.table import NATIVE, REFERENCE, Choice, at_most, choices, spelled
from defenses import DEFENSES
from defenses.catalog import is_simulated
from fl.cards import Resources, StageRequest
from fl.specs import TrialSpec
from harness.execute.work import BundleItem, FederationItem, StageItem, Trial, WorkItem
from harness.plan.keys import federation_key
from harness.plan.stage_requests import defense_stages, stage_requests

MAX_BUNDLE = 16
"""Trials of a bundle, unless more are needed to fill the solver's batch."""
REFILLS = 4
"""How often a bundle's tasks fill the solver's batch, at most: where some end early, others enter."""


@dataclass(frozen=True)
class Limits:
    """What an item may use.

    Attributes:
        resources: What it asks for.
        timeout_s: Wall-clock limit (of one trial, for bundles), or None.
    """

    resources: Resources
    timeout_s: float | None = None


class LimitsOf(Protocol):
    """Looks up `resources:` of the matrix over a card's own declaration."""

    def __call__(self, kind: str, name: str, declared: Resources) -> Limits:
        """Return the limits of `kind` (`attack`, `federation`, `stage`) for the plug-in `name`."""


class Schedule:
    """Items in an order that keeps lanes busy; an item is ready when what it needs is done."""

    def __init__(
        self,
        trials: Sequence[Trial],
        *,
        lanes: int,
        limits: LimitsOf,
        attacked: Callable[[Trial], bool],
        trained: Callable[[Trial], bool],
        device: str = "cpu",
    ) -> None:
        """Plan the items that `trials` still need.

        Args:
            trials: What has no row yet.
            lanes: How many items can run at the same time; bundles are cut so that all have work.
            limits: Resources and time limits.
            attacked: Whether a trial's reconstructions are stored and scored.
            trained: Whether a trial's federation is stored.
            device: Type of device that attacks run on, for the width of the solver's batches.
        """
        self._lanes = lanes
        self._limits = limits
        self._attacked = attacked
        self._trained = trained
        self._device = device
        self._waits: dict[str, set[str]] = {}
        self._items: dict[str, WorkItem] = {}
        self._queue: list[str] = []
        self._done: set[str] = set()
        self._users: dict[str, list[Trial]] = defaultdict(list)
        self.add(trials)

    def add(self, trials: Sequence[Trial]) -> None:
        """Queue the items that further trials still need; they are bundled among themselves."""
        unattacked = []
        for trial in trials:
            if self._attacked(trial):
                self._add_federation(trial)
            else:
                unattacked.append(trial)
        for group in _groups(unattacked):
            filling = trials_filling(group[0].spec, self._device)
            for members in _batched(group, bundle_size(len(group), lanes=self._lanes, filling=filling)):
                self._add_bundle(members)

    def ready(self, accept: Callable[[WorkItem], bool]) -> WorkItem | None:
        """Take the first item whose needs are met and that `accept` has a slot for."""
        for position, item_id in enumerate(self._queue):
            if self._waits[item_id] <= self._done and accept(self._items[item_id]):
                del self._queue[position]
                return self._items[item_id]
        return None

    def finish(self, item: WorkItem) -> None:
        """Note that an item is done, so that others become ready."""
        self._done.add(item.item_id)

    def again(self, items: Iterable[WorkItem], *, like: WorkItem) -> None:
        """Queue `items` in front, with the needs of the item they replace."""
        new = list(items)
        for item in new:
            self._items[item.item_id] = item
            self._waits[item.item_id] = self._waits[like.item_id]
            users = item.trials if isinstance(item, BundleItem) else self._users[like.item_id]
            self._users[item.item_id] = list(users)
        self._queue[:0] = [item.item_id for item in new]

    def users(self, item: WorkItem) -> list[Trial]:
        """Return the trials that an item is for."""
        return self._users[item.item_id]

    def drop_users(self, item: WorkItem) -> list[Trial]:
        """Remove everything that needs a failed item and return the trials that are lost with it."""
        lost = {item.item_id}
        for item_id in list(self._queue):
            if self._waits[item_id] & lost:
                self._queue.remove(item_id)
                lost.add(item_id)
        trials = [trial for item_id in lost for trial in self._users[item_id]]
        return list({trial.trial_id: trial for trial in trials}.values())

    def remaining(self) -> int:
        """Return how many items have not been taken."""
        return len(self._queue)

    def _add_bundle(self, trials: tuple[Trial, ...]) -> None:
        spec = trials[0].spec
        waits: set[str] = set()
        for trial in trials:
            federation = self._add_federation(trial)
            waits |= self._add_stages(trial, stage_requests(trial.spec), after=federation)
            if federation is not None and trial.spec.observe.last_round > 0:
                waits.add(federation)
        limits = self._limits("attack", spec.attack.name, ATTACKS.get(spec.attack.name).resources)
        item = BundleItem(trials, limits.resources, limits.timeout_s)
        self._add(item, waits, trials)

    def _add_federation(self, trial: Trial) -> str | None:
        spec = trial.spec
        if spec.federation is None or self._trained(trial):
            return None
        card = DEFENSES.get(spec.defense.name)
        stages = self._add_stages(trial, defense_stages(spec), after=None)
        limits = self._limits("federation", spec.defense.name, card.resources)
        item = FederationItem(federation_key(spec), spec, limits.resources, limits.timeout_s)
        return self._add(item, stages, (trial,))

    def _add_stages(self, trial: Trial, requests: Sequence[StageRequest], *, after: str | None) -> set[str]:
        """Add stages; one with inputs that are none of them waits for the federation `after`.

        The untrained model of round 0 waits for no training, only for what its defense brings along.
        """
        keys = {request.key for request in requests}
        for request in requests:
            limits = self._limits("stage", request.kind, request.resources)
            needs = set(request.inputs)
            if request.round == 0:
                needs = needs & keys | {stage.key for stage in defense_stages(trial.spec)}
            waits = {f"stage-{key}" for key in needs & keys}
            if after is not None and not needs <= keys:
                waits.add(after)
            self._add(StageItem(request, trial.spec, limits.timeout_s), waits, (trial,))
        return {f"stage-{key}" for key in keys}

    def _add(self, item: WorkItem, waits: set[str], users: Sequence[Trial]) -> str:
        self._users[item.item_id].extend(users)
        if item.item_id not in self._items:
            self._items[item.item_id] = item
            self._waits[item.item_id] = waits
            self._queue.append(item.item_id)
        return item.item_id


def bundle_size(trials: int, *, lanes: int, filling: int) -> int:
    """Return how many of `trials` alike ones make a bundle.

    Lanes get four bundles each, so that none is idle at the end. But a batch takes as long with few tasks as
    with many, so spreading what would fill one gains nothing: a bundle fills it, as far as there is work.

    Args:
        trials: How many there are.
        lanes: How many bundles are computed at the same time.
        filling: How many fill the solver's batch.
    """
    share = trials // (4 * lanes)
    if share < filling:
        return min(filling, trials)
    most = max(MAX_BUNDLE // filling, REFILLS if filling > 1 else 1)
    return filling * min(share // filling, most)


def trials_filling(spec: TrialSpec, device: str) -> int:
    """Return how many trials like this one fill the solver's batch (`attacks.engine`) on a type of device."""
    choice = _choice(spec, device)
    return 1 if choice == REFERENCE else math.ceil(choice.lanes / spec.targets)


def lanes_of(item: BundleItem, device: str) -> int:
    """Return how many lanes the solver's batches have for a bundle on a type of device; 0: the plain loop."""
    with at_most(item.lane_limit):
        choices = [_choice(trial.spec, device) for trial in item.trials]
    return max(0 if choice == REFERENCE else choice.lanes for choice in choices)


def _choice(spec: TrialSpec, device: str) -> Choice:
    """Return how the solver treats a trial's tasks; an attack without lanes is like the plain loop.

    The native kernel is for L-BFGS on gradients as they are, without a mirror.
    """
    card = ATTACKS.get(spec.attack.name)
    simulated = spec.attacker == "adaptive" and is_simulated(spec.defense)
    if spec.model is None or simulated or not card.side_by_side(spec.attack.config):
        return REFERENCE
    plain = isinstance(spec.attack.config, DlgConfig) and spec.attacker == "static"
    possible = choices(spelled(spec.model.name, spec.model.config.resolved()), device)
    return next((choice for choice in possible if plain or choice != NATIVE), REFERENCE)


def _groups(trials: Sequence[Trial]) -> Iterator[list[Trial]]:
    """Group trials whose tasks can share one `solve`: same attack, data, model, federation and needs."""
    groups: dict[tuple[str, ...], list[Trial]] = defaultdict(list)
    for trial in trials:
        spec = trial.spec
        needs = federation_key(spec) if spec.federation and spec.observe.last_round else ""
        stages = sorted(request.key for request in stage_requests(spec))
        shape = (spec.data, spec.model, spec.federation, spec.recorded)
        sections = [section.canonical if section else "" for section in shape]
        groups[(spec.attack.name, *sections, needs, *stages)].append(trial)
    for group in groups.values():
        yield sorted(group, key=_batch_key)


def _batch_key(trial: Trial) -> tuple[str, bool]:
    """Return what brings trials together that can share a batch of the solver."""
    return trial.spec.attack.canonical, trial.spec.attacker == "adaptive"


def _batched(trials: Sequence[Trial], size: int) -> Iterator[tuple[Trial, ...]]:
    iterator = iter(trials)
    while batch := tuple(islice(iterator, size)):
        yield batch
