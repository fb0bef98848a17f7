"""Building the variants of each section of a cell from what the document says about it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl.errors import BenchError
from fl.registry import Registry
from fl.specs import JSON, Config, FederationSpec, ObserveSpec, Recorded, ThreatModel
from harness.config.defense import named, resolve_defense, resolve_plugin
from harness.config.plugins import Plugins
from harness.config.presets import with_preset
from harness.config.problems import Problems, did_you_mean, shown
from harness.config.sections import Pool, Pools
from harness.config.sweeps import alternatives, is_number
from harness.config.validate import validate
from harness.config.yaml_loader import Node, node_of

DEFAULTS: Mapping[str, JSON] = {
    "attacker": "static",
    "defense": {"name": "none"},
    "federation": {},
    "observe": {},
    "targets": 4,
    "threat_model": {},
}
"""Sections that a cell may leave out."""
REPLACED = ("data", "model", "federation")
"""Sections whose place a recorded observation takes; it is a single target, and says itself what is seen."""


@dataclass
class Builder:
    """Turns what is written about a section into indices of its variants.

    Attributes:
        plugins: Where names are looked up.
        problems: Where mistakes go.
        budgets: The axis `noise_budget`: a list or `auto` per defense.
        pools: The variants built so far.
        budgeted: Defenses that a cell has used, for spotting entries of `budgets` that none uses.
        complete: Whether all that the cells say was understood; only then is a missing section a mistake.
    """

    plugins: Plugins
    problems: Problems
    budgets: Mapping[str, Node] = field(default_factory=dict)
    pools: Pools = field(default_factory=Pools)
    budgeted: set[str] = field(default_factory=set)
    complete: bool = True

    def variants(self, section: str, node: Node | None, at: Node, *, recorded: bool) -> list[int]:
        """Return the variants of `section`; [] with problems added if there is none.

        Args:
            section: One of `sections.SECTIONS`.
            node: What is written about it, shorthands written out; None if nothing is.
            at: The cell, for naming a line where nothing is written.
            recorded: Whether a recorded observation takes the place of data, model and federation.
        """
        pool = self.pools.of(section)
        if node is None or (node.value is None and section == "public"):
            return self._unsaid(section, at, pool, recorded=recorded)
        build: Callable[[Node], list[Any]] = getattr(self, f"_{section}")
        found: list[int] = []
        for choice in alternatives(node, self.problems):
            for value in build(choice):
                try:
                    index = pool.add(value, choice.mark)
                except BenchError as error:  # the identity of some data is that of the files
                    self.problems.add(choice.mark, str(error))
                    continue
                if index in found:
                    self.problems.add(choice.mark, "expected every value once, got a sweep that repeats one")
                else:
                    found.append(index)
        return found

    def _unsaid(self, section: str, at: Node, pool: Pool[Any], *, recorded: bool) -> list[int]:
        if section in ("public", "recorded") or (recorded and section in REPLACED):
            return [pool.add(None, at.mark)]
        if recorded and section == "targets":
            return [pool.add(1, at.mark)]
        if section in DEFAULTS:
            default = node_of(DEFAULTS[section], at.mark)
            return self.variants(section, default, at, recorded=recorded)
        if self.complete:
            message = f"expected {section}: under defaults, under matrix or in the cell, got none"
            self.problems.add(at.mark, message)
        return []

    def _plugin(self, registry: Registry[Any], node: Node) -> list[Any]:
        plugin = resolve_plugin(registry, node, self.problems)
        return [] if plugin is None else [plugin]

    def _validated(self, model: type[Config], node: Node) -> list[Any]:
        section = validate(model, node, self.problems)
        return [] if section is None else [section]

    def _data(self, node: Node) -> list[Any]:
        return self._plugin(self.plugins.datasets, node)

    _public = _data

    def _model(self, node: Node) -> list[Any]:
        return self._plugin(self.plugins.models, node)

    def _attack(self, node: Node) -> list[Any]:
        return self._plugin(self.plugins.attacks, node)

    def _defense(self, node: Node) -> list[Any]:
        found = resolve_defense(self.plugins.defenses, node, self.budgets, self.problems)
        self.budgeted.update(protection.plugin.name for protection in found)
        return list(found)

    def _federation(self, node: Node) -> list[Any]:
        full = with_preset(node, self.problems)
        return [] if full is None else self._validated(FederationSpec, full)

    def _observe(self, node: Node) -> list[Any]:
        return self._validated(ObserveSpec, node)

    def _threat_model(self, node: Node) -> list[Any]:
        manipulation = node.entries.get("manipulation")
        if manipulation is not None and manipulation.value is not None:
            plugin = resolve_plugin(self.plugins.manipulations, manipulation, self.problems)
            if plugin is None:
                return []
            entries = {**node.entries, "manipulation": node_of(named(plugin), manipulation.mark)}
            node = Node(entries, node.mark, node.keys)
        return self._validated(ThreatModel, node)

    def _attacker(self, node: Node) -> list[Any]:
        if node.value in ("static", "adaptive"):
            return [node.value]
        hint = did_you_mean(str(node.value), ("static", "adaptive"))
        self.problems.add(node.mark, f"expected static or adaptive, got {shown(node.plain())}{hint}")
        return []

    def _targets(self, node: Node) -> list[Any]:
        if is_number(node.value) and isinstance(node.value, int) and node.value >= 1:
            return [node.value]
        self.problems.add(node.mark, f"expected an integer >= 1, got {shown(node.plain())}")
        return []

    def _recorded(self, node: Node) -> list[Any]:
        file = node.entries.get("file")
        if file is None or not isinstance(file.value, str) or set(node.entries) != {"file"}:
            self.problems.add(node.mark, "expected {file: PATH, public: DATASET} of a recorded observation")
            return []
        try:
            return [read_recorded(file.value)]
        except BenchError as error:
            self.problems.add(file.mark, str(error))
        except OSError as error:
            reason = error.strerror or error
            self.problems.add(
                file.mark, f"expected a recorded observation, cannot read {file.value!r}: {reason}"
            )
        return []


def read_recorded(file: str) -> Recorded:
    """Return a recorded observation's identity.

    Raises:
        OSError: If it cannot be read.
        RecordedObservationError: If it is not a recorded observation.
    """
    from fl.recorded import header

    with open(file, "rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    header(Path(file))
    return Recorded(file=file, sha256=sha256)
