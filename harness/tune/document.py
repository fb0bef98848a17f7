"""A tune file: read, checked and resolved; neither torch nor Optuna is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from fl.errors import ConfigError
from fl.specs import JSON
from harness.config.defense import resolve_defense
from harness.config.documents import merged, read_documents
from harness.config.matrix import Matrix, resolve_matrix
from harness.config.merge import written_out
from harness.config.plugins import Plugins, installed
from harness.config.problems import Problems, shown, unknown_key
from harness.config.settings import Settings, read_settings
from harness.config.validate import validate
from harness.config.yaml_loader import Mark, Node, node_of
from harness.plan.planner import Plan, make_plan
from harness.tune.settings import StudySettings, read_study
from harness.tune.space import Space, read_space

SHARED = ("version", "name", "seeds", "defaults", "resources", "store", "max_failures")
"""Keys that mean what they mean in a matrix."""
TOP_LEVEL = (
    *SHARED, "extends", "attacks", "attackers", "judge", "space", "objectives", "leakage", "constraints",
    "sampler", "prune", "trials", "parallel",
)  # fmt: skip
VARIED = ("defense", "attack", "attacker", "noise_budget")
"""Sections of a cell that the tune file's own keys set."""
STATIC = ("static",)


class _Judge(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tolerance: float = Field(0.05, ge=0)


@dataclass(frozen=True)
class Attacks:
    """Attacks with the attackers that mount them.

    Attributes:
        attacks: Each a plug-in as a matrix names it.
        attackers: `static`, `adaptive` or both.
    """

    attacks: Node
    attackers: Node

    @property
    def static(self) -> Attacks:
        """The same attacks by the static attacker: without a defense there is nothing to know of it."""
        mark = self.attackers.mark
        return Attacks(self.attacks, Node((Node("static", mark),), mark))


@dataclass(frozen=True)
class Tuning:
    """A resolved tune file.

    Attributes:
        path: The file.
        document: It, with what it extends.
        settings: Name, seeds and everything that is no part of a trial's identity.
        study: What is wanted and how it is searched.
        space: The defenses.
        tuning: The attacks that leakage is measured by.
        judge: Attacks that only score the front; None for none.
        tolerance: Leakage that the judge may find beyond the tuning attacks' before a defense is flagged.
        plugins: Where plug-ins are looked up.
    """

    path: str
    document: Node
    settings: Settings
    study: StudySettings
    space: Space
    tuning: Attacks
    judge: Attacks | None
    tolerance: float
    plugins: Plugins

    @property
    def name(self) -> str:
        """The study's name, which is also the experiment's."""
        return self.settings.name

    @cached_property
    def none(self) -> Node:
        """The reference: no defense."""
        return node_of({"name": "none"}, self.document.mark)

    @cached_property
    def template(self) -> Matrix:
        """None, and every defense of the space at its first values, under all attacks: samples of trials."""
        firsts = [next(branch.corners()) for branch in self.space.branches.values()]
        parts = [self.tuning] + ([self.judge] if self.judge else [])
        attacks = tuple(attack for part in parts for attack in part.attacks.items)
        attackers = {node.value: node for part in parts for node in part.attackers.items}
        mark = self.tuning.attacks.mark
        both = Attacks(Node(attacks, mark), Node(tuple(attackers.values()), mark))
        return self.matrix(_distinct([self.none, *firsts]), both)

    def matrix(self, defenses: Sequence[Node], by: Attacks) -> Matrix:
        """Return the matrix of some defenses under some attacks with every seed."""
        mark = self.document.mark
        axes = {"defense": Node(tuple(defenses), mark), "attack": by.attacks, "attacker": by.attackers}
        entries = {key: node for key, node in self.document.entries.items() if key in SHARED}
        entries["name"] = Node(self.name, mark)
        entries["matrix"] = Node(axes, mark, dict.fromkeys(axes, mark))
        document = Node(entries, mark, {**self.document.keys, "matrix": mark, "name": mark})
        return resolve_matrix([document], path=self.path, plugins=self.plugins)

    def plan(self, defense: Node, by: Attacks, stored: Mapping[str, str]) -> Plan:
        """Return the trials of one defense under some attacks."""
        return make_plan(self.matrix([defense], by), stored)

    def plain(self) -> dict[str, JSON]:
        """Return the document as plain JSON."""
        return {key: node.plain() for key, node in self.document.entries.items()}

    def definition(self) -> dict[str, JSON]:
        """Return what all Optuna trials of the study must agree on."""
        plain = self.plain()
        keys = ("seeds", "defaults", "attacks", "attackers", "objectives", "constraints", "leakage", "prune")
        return {
            **{key: plain.get(key) for key in keys},
            "space": self.space.plain(),
            "sampler": self.study.sampler.model_dump(mode="json"),
        }


def load_tuning(path: str | Path, *, plugins: Plugins | None = None) -> Tuning:
    """Read, validate and resolve a tune file.

    Raises:
        ConfigError: With every mistake in the file (and in the one it extends).
    """
    plugins, problems = plugins or installed(), Problems()
    parts = read_documents(path)
    for part in parts:
        for key in part.entries:
            if key not in TOP_LEVEL:
                problems.add(part.keys[key], _unknown(key))
    document = merged(parts)
    before = len(problems)
    tuning = Tuning(
        path=str(path),
        document=document,
        settings=read_settings(document, plugins, problems),
        study=read_study(document, problems),
        space=_space(document, plugins, problems),
        tuning=Attacks(_attacks(document, problems), _attackers(document, problems)),
        judge=_judge(document, problems),
        tolerance=_tolerance(document, problems),
        plugins=plugins,
    )
    _check_defaults(document, problems)
    if len(problems) == before:
        _check_trials(tuning, problems)
    problems.raise_if_any()
    return tuning


def _unknown(key: str) -> str:
    hints = {"matrix": "space", "defenses": "space", "attack": "attacks", "defense": "space"}
    return (
        f"unknown key {key!r}. Did you mean {hints[key]!r}?" if key in hints else unknown_key(key, TOP_LEVEL)
    )


def _space(document: Node, plugins: Plugins, problems: Problems) -> Space:
    node = document.entries.get("space")
    if node is None:
        problems.add(document.mark, "expected a space: the defenses to tune, and what of them; got none")
        return Space({})
    space = read_space(node, problems)
    for label, branch in space.branches.items():
        name = branch.node.entries["name"]
        if name.value not in plugins.defenses:
            problems.add(name.mark, plugins.defenses.unknown(str(name.value)))
        elif name.value == "none":
            problems.add(node.keys[label], "expected a defense, got 'none', which is always evaluated")
        else:
            for corner in branch.corners():
                resolve_defense(plugins.defenses, corner, {}, problems)
    return space


def _attacks(document: Node, problems: Problems) -> Node:
    node = document.entries.get("attacks")
    if node is None or not node.items:
        problems.add(node.mark if node else document.mark, "expected a list of attacks to tune against")
        return Node((), document.mark)
    return node


def _attackers(document: Node, problems: Problems) -> Node:
    node = document.entries.get("attackers")
    if node is None:
        return node_of(list(STATIC), document.mark)
    if not node.items:
        problems.add(node.mark, f"expected a list of static and adaptive, got {shown(node.plain())}")
    return node


def _judge(document: Node, problems: Problems) -> Attacks | None:
    node = document.entries.get("judge")
    if node is None or node.value is None:
        return None
    if not isinstance(node.value, dict):
        problems.add(node.mark, f"expected {{attacks: [...]}}, got {shown(node.plain())}")
        return None
    mine = Node(
        {key: child for key, child in node.entries.items() if key != "tolerance"}, node.mark, node.keys
    )
    for key in mine.entries:
        if key not in ("attacks", "attackers"):
            problems.add(node.keys[key], unknown_key(key, ("attacks", "attackers", "tolerance")))
    attackers = _attackers(mine if "attackers" in mine.entries else document, problems)
    return Attacks(_attacks(mine, problems), attackers)


def _tolerance(document: Node, problems: Problems) -> float:
    node = document.entries.get("judge")
    given = (
        {} if node is None or "tolerance" not in node.entries else {"tolerance": node.entries["tolerance"]}
    )
    mark = document.mark if node is None else node.mark
    read = validate(_Judge, Node(given, mark, {} if node is None else node.keys), problems)
    return (read or _Judge()).tolerance


def _check_defaults(document: Node, problems: Problems) -> None:
    defaults = document.entries.get("defaults")
    for key in defaults.entries if defaults else ():
        if defaults is not None and key.split(".")[0] in VARIED:
            where = {"attack": "attacks", "attacker": "attackers"}.get(key, "space")
            problems.add(defaults.keys[key], f"expected this under {where}, got it under defaults")


def _check_trials(tuning: Tuning, problems: Problems) -> None:
    """Check what needs whole trials: sections, sweeps in the defaults, attacks that the judge shares."""
    for attacks in (tuning.tuning, *([tuning.judge] if tuning.judge else [])):
        try:
            matrix = tuning.matrix([tuning.none], attacks)
        except ConfigError as error:
            for problem in error.problems:
                problems.add(Mark(problem.path, problem.line or 1, problem.key), problem.message)
            return
        wanted = len(attacks.attacks.items) * len(attacks.attackers.items)
        if sum(1 for _ in matrix.trials()) != wanted * len(tuning.settings.seeds):
            at = tuning.document.entries.get("defaults", tuning.document)
            problems.add(at.mark, "expected one value of everything under defaults, got a sweep")
    if tuning.judge is not None:
        seen = set(_pairs(tuning.matrix([tuning.none], tuning.tuning)))
        if seen & set(_pairs(tuning.matrix([tuning.none], tuning.judge))):
            message = "expected attacks that are not tuned against, got one that is under attacks, too"
            problems.add(tuning.judge.attacks.mark, message)


def _pairs(matrix: Matrix) -> Iterable[tuple[str, str]]:
    for cell, _ in matrix.trials():
        yield matrix.pools.attack[cell.attack].canonical, matrix.pools.attacker[cell.attacker]


def _distinct(defenses: Sequence[Node]) -> list[Node]:
    """Return defenses without those that are written alike."""
    found: dict[Any, Node] = {}
    for node in defenses:
        found.setdefault(str(written_out("defense", node).plain()), node)
    return list(found.values())
