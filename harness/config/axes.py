"""The axes of a matrix: what each of their values sets in a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fl.specs import Config, FederationSpec, ObserveSpec, ThreatModel
from harness.config.build import REPLACED
from harness.config.merge import merge, nested, written_out
from harness.config.problems import Problems, shown, unknown_key
from harness.config.sections import SECTIONS
from harness.config.sweeps import is_sweep, sweep_values
from harness.config.yaml_loader import Mark, Node

OBSERVATION = "observation"
CELL_KEYS = (*(section for section in SECTIONS if section != "recorded"), "noise_budget", OBSERVATION)
"""What a cell, `defaults` and axes may name; all but the noise budget take dotted paths."""

PLAIN: Mapping[str, type[Config]] = {
    "federation": FederationSpec,
    "observe": ObserveSpec,
    "threat_model": ThreatModel,
}
"""Sections without plug-ins, whose keys people name without the section."""


class Setting(NamedTuple):
    """One thing that an axis value sets.

    Attributes:
        path: The section, then keys inside it.
        value: What is set there.
        mark: Where the axis is named.
    """

    path: tuple[str, ...]
    value: Node
    mark: Mark


class AxisValue(NamedTuple):
    """One value of an axis, or one row of axes that move together."""

    settings: tuple[Setting, ...]
    mark: Mark


@dataclass(frozen=True)
class Axis:
    """An axis, or several that move together (`zip`).

    Attributes:
        values: What it takes on, in order.
        sections: The sections that it touches.
        mark: Where it stands.
    """

    values: tuple[AxisValue, ...]
    sections: frozenset[str]
    mark: Mark


def read_axes(matrix: Node, problems: Problems) -> list[Axis]:
    """Return the axes under `matrix`, in the order of the file; `noise_budget` is left to the defenses."""
    axes: list[Axis] = []
    taken: dict[str, Mark] = {}
    for name, node in matrix.entries.items():
        if name == "noise_budget":
            continue
        groups = [{name: node}] if name != "zip" else _zip_groups(node, problems)
        for group in groups:
            keys = {key: matrix.keys[key] for key in group} if name != "zip" else _keys_of(node, group)
            for key in group:
                if key in taken:
                    problems.add(
                        keys[key], f"expected each axis once, got {key!r} again (line {taken[key].line})"
                    )
                taken[key] = keys[key]
            axis = _axis(group, keys, matrix.keys[name], problems)
            if axis is not None:
                axes.append(axis)
    return axes


def read_cell(node: Node, problems: Problems) -> dict[str, Node]:
    """Return what a cell (or `defaults`) says about each section, shorthands written out."""
    if not isinstance(node.value, dict):
        problems.add(node.mark, f"expected a mapping of sections, got {shown(node.plain())}")
        return {}
    settings = [
        setting
        for key, child in node.entries.items()
        for setting in _settings(key, child, node.keys[key], problems)
    ]
    return _set({}, settings)


def apply(
    below: Mapping[str, Node], values: tuple[AxisValue, ...], sections: frozenset[str]
) -> dict[str, Node]:
    """Return `below` with what axis values set in some sections; whole sections first, then parts of them."""
    settings = [setting for value in values for setting in value.settings if setting.path[0] in sections]
    return _set(below, settings)


def below(defaults: Mapping[str, Node], sections: frozenset[str]) -> dict[str, Node]:
    """Return the defaults that stay below a cell which names `sections` itself.

    A recorded observation and the data, model and federation that it replaces exclude each other; what is
    nearer to the cell wins.
    """
    if "recorded" in sections and not sections & set(REPLACED):
        dropped = (*REPLACED, "observe", "targets")
        return {section: node for section, node in defaults.items() if section not in dropped}
    if sections & set(REPLACED) and "recorded" not in sections:
        return {section: node for section, node in defaults.items() if section != "recorded"}
    return dict(defaults)


def over(defaults: Mapping[str, Node], cell: Mapping[str, Node]) -> dict[str, Node]:
    """Return `cell` with what it leaves unsaid taken from `defaults`."""
    merged = below(defaults, frozenset(cell))
    for section, node in cell.items():
        merged[section] = merge(merged[section], node) if section in merged else node
    return merged


def _set(below: Mapping[str, Node], settings: list[Setting]) -> dict[str, Node]:
    cell = dict(below)
    for setting in sorted(settings, key=lambda setting: len(setting.path)):
        section, *path = setting.path
        value = written_out(section, nested(path, setting.value, setting.mark))
        cell[section] = merge(cell[section], value) if section in cell else value
    return cell


def _zip_groups(node: Node, problems: Problems) -> list[dict[str, Node]]:
    groups = node.items or (node,)
    for group in groups:
        if not group.entries:
            problems.add(
                group.mark, f"expected {{axis: [...], axis: [...]}} under zip, got {shown(group.plain())}"
            )
    return [group.entries for group in groups if group.entries]


def _keys_of(node: Node, group: Mapping[str, Node]) -> Mapping[str, Mark]:
    return next(each.keys for each in (node.items or (node,)) if each.entries is group)


def _axis(group: Mapping[str, Node], keys: Mapping[str, Mark], mark: Mark, problems: Problems) -> Axis | None:
    columns: list[list[AxisValue]] = []
    for key, node in group.items():
        items = _axis_items(node, problems)
        rows = [AxisValue(tuple(_settings(key, item, keys[key], problems)), item.mark) for item in items]
        if not all(row.settings for row in rows) or not rows:
            return None
        columns.append(rows)
    lengths = {key: len(rows) for key, rows in zip(group, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        problems.add(mark, f"expected axes of equal length under zip, got: {counts}")
        return None
    values = tuple(
        AxisValue(tuple(setting for cell in row for setting in cell.settings), row[0].mark)
        for row in zip(*columns, strict=True)
    )
    return Axis(values, frozenset(setting.path[0] for setting in values[0].settings), mark)


def _axis_items(node: Node, problems: Problems) -> list[Node]:
    if is_sweep(node):
        return sweep_values(node, problems)
    if not isinstance(node.value, tuple):
        problems.add(node.mark, f"expected a list of values or a sweep, got {shown(node.plain())}")
    elif not node.value:
        problems.add(node.mark, "expected at least one value, got an empty list")
    return list(node.items)


def _settings(key: str, node: Node, mark: Mark, problems: Problems) -> list[Setting]:
    """Return what `key: node` sets; a recorded observation's `public` is a section of its own."""
    head, *path = key.split(".")
    if key == "noise_budget":
        return [Setting(("defense", "noise_budget"), node, mark)]
    if head not in CELL_KEYS or head == "noise_budget" or "" in path:
        problems.add(mark, _unknown(key, head))
        return []
    if head != OBSERVATION:
        return [Setting((head, *path), node, mark)]
    public = None
    if not path and "public" in node.entries:
        public, node = node.entries["public"], node.without("public")
    elif path == ["public"]:
        return [Setting(("public",), node, mark)]
    settings = [Setting(("recorded", *path), node, mark)]
    return settings + ([Setting(("public",), public, mark)] if public else [])


def _unknown(key: str, head: str) -> str:
    if head in ("seed", "seeds"):
        return "expected `seeds: [...]` at the top level of the file: seeds are no part of a cell"
    if head == "dataset":
        return "unknown key 'dataset'. Did you mean 'data'?"
    if key != head and head in CELL_KEYS:
        return f"expected a dotted path such as federation.batch_size, got {key!r}"
    for section, model in PLAIN.items():
        if head in model.model_fields:
            return f"unknown key {key!r}. Did you mean '{section}.{key}'?"
    return unknown_key(head, CELL_KEYS)
