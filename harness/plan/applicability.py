"""Which cells mean something, decided once per combination of what the decision depends on."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import NamedTuple

from defenses.catalog import ChainConfig, hooks_of, unadaptable
from fl.batch_bounds import smallest_batch
from fl.candidate_bounds import most_candidates, unobservable
from fl.cards import DataInfo, ModelTraits, Setting
from fl.data.partition_bounds import shortage, without_classes
from fl.errors import BenchError
from fl.specs import ObservationKind, Plugin, Recorded
from harness.config.matrix import Matrix
from harness.config.problems import Problems
from harness.config.sections import Cell, Variant

_setting_of = attrgetter(
    "attacker", "data", "federation", "model", "observe", "public", "recorded", "threat_model"
)
_candidates_of = attrgetter("data", "federation", "observe", "recorded", "targets")


class World(NamedTuple):
    """What a cell's data and model are."""

    data: DataInfo
    model: ModelTraits
    observes: ObservationKind


class Applicability:
    """Answers for the cells of one matrix."""

    def __init__(self, matrix: Matrix, problems: Problems) -> None:
        """Take the cells of `matrix`; missing data, weights and the like go to `problems`."""
        self._matrix = matrix
        self._pools = matrix.pools
        self._plugins = matrix.plugins
        self._problems = problems
        self._infos: dict[tuple[str, int], DataInfo | None] = {}
        self._worlds: dict[tuple[int, ...], World | None] = {}
        self._ready: dict[int, bool] = {}
        self._wrapping = ["wrap_model" in self._hooks(v.value.plugin) for v in self._pools.defense.variants]
        self._settings: dict[tuple[int, ...], tuple[int, Setting | None, str | None]] = {}
        self._attacks: dict[tuple[int, int], str | None] = {}
        self._defenses: dict[tuple[int, int], str | None] = {}
        self._publics: dict[tuple[int, int, int], str | None] = {}
        self._counted: set[tuple[int, ...]] = set()

    def reason(self, cell: Cell) -> str | None:
        """Return why `cell` means nothing, or None; one with too few targets is a problem."""
        number, setting, reason = self._setting(cell)
        if setting is None or reason is not None:
            return reason
        reason = (
            self._attack(number, cell, setting) or self._defense(number, cell, setting) or self._public(cell)
        )
        if reason is None:
            self._count_targets(cell)
        return reason

    def world(self, cell: Cell) -> World | None:
        """Return what the cell's data and model are; None where that could not be found out."""
        key = (cell.data, cell.model, cell.recorded, cell.observe)
        if key not in self._worlds:
            self._worlds[key] = self._make_world(cell)
        return self._worlds[key]

    def info(self, section: str, variant: int) -> DataInfo | None:
        """Return what a variant of `data` or `public` holds; None, with a problem, if it is not there."""
        key = (section, variant)
        if key not in self._infos:
            self._infos[key] = self._describe(self._pools.of(section).variants[variant])
        return self._infos[key]

    def _describe(self, variant: Variant[Plugin]) -> DataInfo | None:
        card = self._plugins.datasets.get(variant.value.name)
        try:
            return card.describe(variant.value.config)
        except BenchError as error:
            self._problems.add(variant.mark, str(error))
            return None

    def _make_world(self, cell: Cell) -> World | None:
        recorded, model = self._pools.recorded[cell.recorded], self._pools.model[cell.model]
        if recorded is not None:
            return _recorded_world(recorded)
        info = self.info("data", cell.data)
        if info is None or model is None or not self._model_ready(cell.model):
            return None
        traits = self._plugins.models.get(model.name).traits(model.config, info)
        return World(info, traits, self._pools.observe[cell.observe].kind)

    def _model_ready(self, index: int) -> bool:
        """Return whether the weights that a model starts from are there; if not, that is a problem."""
        if index not in self._ready:
            variant = self._pools.model.variants[index]
            assert variant.value is not None
            try:
                self._plugins.models.get(variant.value.name).require(variant.value.config)
                self._ready[index] = True
            except BenchError as error:
                self._problems.add(variant.mark, str(error))
                self._ready[index] = False
        return self._ready[index]

    def _setting(self, cell: Cell) -> tuple[int, Setting | None, str | None]:
        wrapped = self._wrapping[cell.defense]
        key = (*_setting_of(cell), wrapped)
        if key not in self._settings:
            world, setting = self.world(cell), None
            if world is not None:
                setting = Setting(
                    data=world.data,
                    model=_wrapped(world.model) if wrapped else world.model,
                    federation=self._pools.federation[cell.federation],
                    threat_model=self._pools.threat_model[cell.threat_model],
                    observes=world.observes,
                    form=self._pools.observe[cell.observe].form,
                    attacker=self._pools.attacker[cell.attacker],
                    public=self._public_info(cell),
                )
            reason = (
                None if setting is None else _unfit(setting, self._pools.observe[cell.observe].last_round)
            )
            self._settings[key] = (len(self._settings), setting, reason)
        return self._settings[key]

    def _attack(self, number: int, cell: Cell, setting: Setting) -> str | None:
        key = (number, cell.attack)
        if key not in self._attacks:
            plugin = self._pools.attack[cell.attack]
            card = self._plugins.attacks.get(plugin.name)
            if setting.observes not in card.observes:
                kinds = " or ".join(sorted(card.observes))
                reason: str | None = f"it works on {kinds}, not on {setting.observes}"
            else:
                reason = card.compatible(plugin.config, setting)
            self._attacks[key] = reason and f"attack {plugin.name!r}: {reason}"
        return self._attacks[key]

    def _defense(self, number: int, cell: Cell, setting: Setting) -> str | None:
        key = (number, cell.defense)
        if key not in self._defenses:
            plugin = self._pools.defense[cell.defense].plugin
            card = self._plugins.defenses.get(plugin.name)
            reason = self._hidden(plugin, setting) or card.compatible(plugin.config, setting)
            self._defenses[key] = reason and f"defense {plugin.name!r}: {reason}"
        return self._defenses[key]

    def _hidden(self, plugin: Plugin, setting: Setting) -> str | None:
        """Return why the adversary cannot see, or cannot adapt to, an update under this defense."""
        card = self._plugins.defenses.get(plugin.name)
        if "visible" in self._hooks(plugin) and setting.observes == "update":
            return "it hides single updates (observe.kind: aggregate)"
        return unadaptable(card, plugin.config) if setting.attacker == "adaptive" else None

    def _hooks(self, plugin: Plugin) -> frozenset[str]:
        chained = isinstance(plugin.config, ChainConfig)
        return hooks_of(plugin) if chained else self._plugins.defenses.get(plugin.name).hooks

    def _public(self, cell: Cell) -> str | None:
        key = (cell.public, cell.data, cell.recorded)
        if key not in self._publics:
            self._publics[key] = self._public_unfit(cell)
        return self._publics[key]

    def _public_unfit(self, cell: Cell) -> str | None:
        world = self.world(cell)
        if world is None:
            return None
        public = self._public_info(cell)
        if public is None or (public.channels, public.size) == (world.data.channels, world.data.size):
            return None
        return (
            f"public images are {public.channels} x {public.size} x {public.size}, private ones "
            f"{world.data.channels} x {world.data.size} x {world.data.size}"
        )

    def _public_info(self, cell: Cell) -> DataInfo | None:
        named = self._pools.public[cell.public] is not None
        return self.info("public", cell.public) if named else None

    def _count_targets(self, cell: Cell) -> None:
        key = _candidates_of(cell)
        if key in self._counted:
            return
        self._counted.add(key)
        world, federation = self.world(cell), self._pools.federation[cell.federation]
        targets = self._pools.targets.variants[cell.targets]
        if federation is None or world is None:
            if targets.value != 1:
                message = "expected targets: 1 for a recorded observation"
                self._problems.add(targets.mark, f"{message}, got {targets.value}")
            return
        observe = self._pools.observe[cell.observe]
        images = world.data.images["private"]
        task, attacker = world.data.task, federation.attacker
        reason = without_classes(federation.partition, task.kind)
        if reason is None and attacker is not None:
            reason = attacker.unfit(task.kind, task.classes)
        reason = reason or shortage(federation.partition, images, federation.clients, world.data.groups)
        if reason is not None:
            self._problems.add(self._pools.federation.variants[cell.federation].mark, reason)
            return
        most = most_candidates(federation, observe, images_private=images, labels=task.classes)
        if targets.value > most:
            sent = "label" if observe.kind == "global_model" else observe.kind
            self._problems.add(
                targets.mark,
                f"expected at most {most} targets (one per {sent} of round {observe.round}: {images} private "
                f"images, {federation.participants} of {federation.clients} clients, batch size "
                f"{federation.mean_batch_size:g}), got {targets.value}",
            )


def _wrapped(model: ModelTraits) -> ModelTraits:
    """Return what a model is inside a wrapper, which may hand negative numbers to the head."""
    return replace(model, non_negative_features=False)


def _recorded_world(recorded: Recorded) -> World:
    from pathlib import Path

    from fl.recorded import header

    found = header(Path(recorded.file))
    return World(found.info, found.traits, found.kind)


def _unfit(setting: Setting, last_round: int) -> str | None:
    """Return why data, model, federation and threat model do not go together, or None."""
    federation = setting.federation
    if reason := _model_unfit(setting):
        return reason
    if federation is None:
        if setting.threat_model.behaviour == "malicious":
            return "a recorded observation cannot be manipulated any more (threat_model.behaviour: honest)"
        return None
    if last_round > federation.rounds:
        return (
            f"round {last_round} is observed, but training ends after {federation.rounds} (federation.rounds)"
        )
    return unobservable(setting.threat_model, setting.observes)


def _model_unfit(setting: Setting) -> str | None:
    """Return why the model cannot take the images, or not in such batches, or None."""
    model, data, federation = setting.model, setting.data, setting.federation
    if data.size < model.min_size:
        return f"the model needs images of at least {model.min_size} pixels a side, these have {data.size}"
    if model.channels is not None and data.channels not in model.channels:
        takes = " or ".join(map(str, model.channels))
        return f"the model takes images of {takes} channels, these have {data.channels}"
    if federation is None or federation.batch_norm == "eval":
        return None
    least = model.min_train_batch
    needs = f"with federation.batch_norm: train the model needs batches of at least {least} images"
    nominal = min(federation.batch_sizes or (federation.batch_size,))
    if nominal < least:
        return f"{needs}, the smallest has {nominal}"
    observed = 0 if setting.observes == "global_model" else 1  # without training, clients only as targets
    trained = federation.participants if federation.rounds else observed
    last = smallest_batch(federation, data, trained=trained)
    if last is not None and last < least:
        return f"{needs}, the last of a client's epoch has {last}"
    return None
