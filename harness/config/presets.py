"""`federation: {preset: NAME}`: a published federation below what the matrix says itself."""

from __future__ import annotations

from fl.presets import PRESETS
from harness.config.merge import merge
from harness.config.problems import Problems, did_you_mean, one_of, shown
from harness.config.yaml_loader import Node, node_of

PRESET = "preset"
INSTEAD = {"batch_size": "batch_sizes", "batch_sizes": "batch_size", "local_steps": "local_epochs"}
"""What is written on the left takes the place of the preset's value on the right."""


def with_preset(node: Node, problems: Problems) -> Node | None:
    """Return a federation with its preset's fields below its own; None, with a problem, for an unknown one.

    Args:
        node: What is written about the federation, sweeps taken apart.
        problems: Where mistakes go.
    """
    chosen = node.entries.get(PRESET)
    if chosen is None:
        return node
    if not isinstance(chosen.value, str) or chosen.value not in PRESETS:
        got = shown(chosen.plain())
        hint = did_you_mean(str(chosen.value), PRESETS)
        problems.add(chosen.mark, f"expected {one_of(list(PRESETS))}, got {got}{hint}")
        return None
    own = node.without(PRESET)
    replaced = {INSTEAD[name] for name in own.entries if name in INSTEAD}
    fields = {name: value for name, value in PRESETS[chosen.value].fields.items() if name not in replaced}
    return merge(node_of(fields, chosen.mark), own)
