"""The registries that a matrix names its plug-ins from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from fl.cards import AttackCard, DataCard, DefenseCard, ManipulationCard, ModelCard
from fl.registry import Registry


@dataclass(frozen=True)
class Plugins:
    """One registry per kind of plug-in."""

    datasets: Registry[DataCard[Any]]
    models: Registry[ModelCard[Any]]
    defenses: Registry[DefenseCard[Any]]
    attacks: Registry[AttackCard[Any]]
    manipulations: Registry[ManipulationCard[Any]]


@cache
def installed() -> Plugins:
    """Return all installed plug-ins; no torch is imported."""
    from attacks import ATTACKS
    from defenses import DEFENSES
    from fl.data import DATASETS
    from fl.manipulations import MANIPULATIONS
    from fl.models import MODELS

    return Plugins(DATASETS, MODELS, DEFENSES, ATTACKS, MANIPULATIONS)
