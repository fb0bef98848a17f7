"""From a cell's `defense` to defenses with their noise budgets filled in."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from fl.cards import DefenseCard, NoiseBudget
from fl.registry import Registry
from fl.specs import JSON, Plugin
from harness.config.merge import merge, nested
from harness.config.problems import Problems, shown
from harness.config.sections import Protection
from harness.config.sweeps import alternatives, is_number
from harness.config.validate import validate
from harness.config.yaml_loader import Node, node_of

BUDGET = "noise_budget"
AUTO = "auto"


def resolve_plugin(registry: Registry[Any], node: Node, problems: Problems) -> Plugin | None:
    """Return the plug-in that a mapping with `name` describes, or None with problems added."""
    if "name" not in node.entries:
        problems.add(node.mark, f"expected the name of {_a(registry.kind)}, got {shown(node.plain())}")
        return None
    name = node.entries["name"]
    if not isinstance(name.value, str):
        problems.add(name.mark, f"expected the name of {_a(registry.kind)}, got {shown(name.plain())}")
        return None
    if name.value not in registry:
        problems.add(name.mark, registry.unknown(name.value))
        return None
    card = registry.get(name.value)
    config = validate(card.config, node.without("name"), problems)
    return None if config is None else Plugin(card.name, card.version, config)


def named(plugin: Plugin) -> dict[str, JSON]:
    """Return a plug-in as it is written inside another section's configuration."""
    return {"name": plugin.name, "version": plugin.version, "config": plugin.config.resolved()}


def resolve_defense(
    registry: Registry[DefenseCard[Any]], node: Node, budgets: Mapping[str, Node], problems: Problems
) -> list[Protection]:
    """Return a defense once per noise budget it is asked for.

    Args:
        registry: All defenses.
        node: The defense with its shorthands written out and no sweep left but that of its noise budget,
            which may stand beside its options.
        budgets: The matrix's axis `noise_budget`: a list or `auto` per defense.
        problems: Where mistakes go.
    """
    node = _with_axis(node, budgets)
    if node.entries.get("name", node).value == "chain" and node.entries.get("links", node).items:
        return _chains(registry, node, problems)
    base = resolve_plugin(registry, node.without(BUDGET), problems)
    if base is None:
        return []
    budget = registry.get(base.name).noise_budget(base.config)
    if BUDGET not in node.entries:
        return _as_given(base, budget, node, problems)
    return _filled(registry, node, budget, problems)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _with_axis(node: Node, budgets: Mapping[str, Node]) -> Node:
    """Return `node` with the axis' noise budgets, unless it brings its own."""
    name = node.entries.get("name", node).value
    if BUDGET in node.entries or not isinstance(name, str) or name not in budgets:
        return node
    budget = budgets[name]
    return merge(node, Node({BUDGET: budget}, node.mark, {BUDGET: budget.mark}))


def _chains(registry: Registry[DefenseCard[Any]], node: Node, problems: Problems) -> list[Protection]:
    """Return a chain once per combination of its links' noise budgets; its own is that of its last link."""
    *links, last = [link if link.entries else _by_name(link) for link in node.entries["links"].items]
    if BUDGET in node.entries:
        own = node.entries[BUDGET]
        last = merge(last, Node({BUDGET: own}, last.mark, {BUDGET: node.keys[BUDGET]}))
    choices = [resolve_defense(registry, link, {}, problems) for link in (*links, last)]
    found = []
    for combination in itertools.product(*choices):
        resolved: list[JSON] = [named(link.plugin) for link in combination]
        written = Node({"links": node_of(resolved, node.keys["links"])}, node.mark, node.keys)
        chain = resolve_plugin(registry, merge(node.without(BUDGET, "links"), written), problems)
        if chain is not None:
            found.append(Protection(chain, combination[-1].noise_budget))
    return found


def _by_name(link: Node) -> Node:
    return Node({"name": link}, link.mark, {"name": link.mark})


def _as_given(base: Plugin, budget: NoiseBudget, node: Node, problems: Problems) -> list[Protection]:
    value = value_at(base.config, budget.field) if budget.field else 0.0
    if not is_number(value):
        problems.add(node.mark, f"expected a noise budget for {base.name!r}: set {budget.field} or {BUDGET}")
        return []
    return [Protection(base, float(value))]


def _filled(
    registry: Registry[DefenseCard[Any]], node: Node, budget: NoiseBudget, problems: Problems
) -> list[Protection]:
    name = node.entries["name"].value
    mark = node.entries[BUDGET].mark
    if not budget.field:
        problems.add(mark, f"{name!r} has no noise budget; leave {BUDGET} out")
        return []
    path = budget.field.split(".")
    if path[0] in node.entries:
        message = f"{budget.field} is the noise budget of {name!r}: give {budget.field} or {BUDGET}, not both"
        problems.add(node.keys[path[0]], message)
        return []
    found = []
    for value in _budget_values(node.entries[BUDGET], budget, problems):
        if not is_number(value.value):
            message = f"expected a number ({budget.unit}) or a list of numbers or 'auto'"
            problems.add(value.mark, f"{message}, got {shown(value.plain())}")
            continue
        plugin = resolve_plugin(
            registry, merge(node.without(BUDGET), nested(path, value, value.mark)), problems
        )
        if plugin is not None:
            found.append(Protection(plugin, float(value.value)))
    return found


def _budget_values(node: Node, budget: NoiseBudget, problems: Problems) -> Sequence[Node]:
    if node.value == AUTO:
        if not budget.grid:
            problems.add(node.mark, "expected numbers: this defense has no default grid for 'auto'")
        return [Node(int(v) if v.is_integer() else v, node.mark) for v in map(float, budget.grid)]
    if isinstance(node.value, tuple) and not node.value:
        problems.add(node.mark, "expected at least one noise budget, got an empty list")
    values = node.items if isinstance(node.value, tuple) else (node,)
    return [choice for value in values for choice in alternatives(value, problems)]


def value_at(config: BaseModel, path: str) -> Any:
    """Return what stands at a dotted path of a configuration; a number indexes a list."""
    value: Any = config
    for part in path.split("."):
        if isinstance(value, BaseModel):
            value = getattr(value, part)
        elif isinstance(value, Mapping):
            value = value[part]
        else:
            value = value[int(part)]
    return value
