"""Attacks and their cards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fl.cards import AttackCard
from fl.registry import Registry


def _builtin() -> Iterable[AttackCard[Any]]:
    from attacks.catalog import CARDS

    return CARDS


ATTACKS: Registry[AttackCard[Any]] = Registry(
    "attack", group="leakbench.attacks", card_type=AttackCard, builtin=_builtin
)
"""Every attack; built as `ATTACKS.implementation(name)()`."""
