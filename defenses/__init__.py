"""Defenses and their cards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fl.cards import DefenseCard
from fl.registry import Registry


def _builtin() -> Iterable[DefenseCard[Any]]:
    from defenses.catalog import CARDS

    return CARDS


DEFENSES: Registry[DefenseCard[Any]] = Registry(
    "defense", group="leakbench.defenses", card_type=DefenseCard, builtin=_builtin
)
"""Every defense; built as `DEFENSES.implementation(name)(config)`."""
