"""Putting cells together: shorthands written out, defaults merged below, dotted paths set."""

from __future__ import annotations

from harness.config.sweeps import is_sweep
from harness.config.yaml_loader import Mark, Node

NAMED = ("data", "public", "model", "defense", "attack")
"""Sections that hold a plug-in, which a bare name may stand for."""


def written_out(section: str, node: Node) -> Node:
    """Return a section with its shorthands written out: bare names, and `{chain: [...]}`."""
    if section in NAMED:
        node = _named(node)
    if section == "defense" and "chain" in node.entries and "name" not in node.entries:
        entries = {"links" if key == "chain" else key: child for key, child in node.entries.items()}
        keys = {"links" if key == "chain" else key: mark for key, mark in node.keys.items()}
        name = Node("chain", node.keys["chain"])
        return Node({"name": name, **entries}, node.mark, {"name": name.mark, **keys})
    for parent, child in (
        ("federation", "partition"),
        ("federation", "schedule"),
        ("threat_model", "manipulation"),
    ):
        if section == parent and child in node.entries:
            entries = {**node.entries, child: _named(node.entries[child])}
            node = Node(entries, node.mark, node.keys)
    return node


def merge(below: Node, above: Node) -> Node:
    """Return `above` with what it leaves unsaid taken from `below`.

    Mappings merge key by key; anything else in `above` replaces. Two mappings that name different plug-ins do
    not merge: options of one mean nothing to the other. A sweep is a value like any other.
    """
    if not isinstance(below.value, dict) or not isinstance(above.value, dict):
        return above
    if is_sweep(below) or is_sweep(above):
        return above
    names = [node.entries["name"].value for node in (below, above) if "name" in node.entries]
    if len(names) == 2 and names[0] != names[1]:
        return above
    entries = dict(below.value)
    for key, child in above.value.items():
        entries[key] = merge(entries[key], child) if key in entries else child
    return Node(entries, above.mark, {**below.keys, **above.keys})


def nested(path: list[str], value: Node, mark: Mark) -> Node:
    """Return `value` under the keys of `path`, all of them standing at `mark`."""
    for key in reversed(path):
        value = Node({key: value}, mark, {key: mark})
    return value


def _named(node: Node) -> Node:
    if not isinstance(node.value, str):
        return node
    return Node({"name": node}, node.mark, {"name": node.mark})
