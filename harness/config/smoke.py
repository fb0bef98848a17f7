"""The smallest version of a matrix that still passes through every cell's code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fl.specs import FederationSpec, ObserveSpec, Plugin
from harness.config.matrix import Matrix
from harness.config.product import Product
from harness.config.rules import Rules
from harness.config.sections import SECTIONS, Pools, Protection

ModelT = TypeVar("ModelT", bound=BaseModel)
TARGETS = 2
LAST_ROUND = 1
CAPS: Mapping[str, int] = {
    "iterations": 10,
    "steps": 10,
    "restarts": 1,
    "rounds": LAST_ROUND,
    "epochs": 1,
    "local_epochs": 1,
    "local_steps": 2,
}
"""Largest value of an integer option by its name, whichever plug-in has it."""


def smoke(matrix: Matrix) -> Matrix:
    """Return `matrix` with its first seed, one round, two targets and few iterations.

    Cells that differed only in what is cut become one. The experiment's name gets `-smoke`, as its trials are
    others.
    """
    pools = Pools()
    moved = {
        section: [
            pools.of(section).add(reduced(variant.value, section), variant.mark)
            for variant in matrix.pools.of(section).variants
        ]
        for section in SECTIONS
    }
    cells = {
        matrix.pools.map(cell, lambda section, index: moved[section][index]): None
        for cell, seed in matrix.trials()
        if seed == matrix.seeds[0]
    }
    settings = replace(matrix.settings, name=f"{matrix.name}-smoke", seeds=matrix.seeds[:1])
    return replace(
        matrix,
        settings=settings,
        pools=pools,
        product=Product(()),
        exclude=Rules((), pools, settings.seeds),
        include=tuple(cells),
    )


def reduced(value: Any, section: str) -> Any:
    """Return the value of a section with everything that takes time cut down."""
    match value:
        case Plugin():
            return replace(value, config=_capped(value.config))
        case Protection():
            return value._replace(plugin=reduced(value.plugin, section))
        case FederationSpec():
            return _capped(value)
        case ObserveSpec():
            rounds = value.rounds and tuple(sorted({min(each, LAST_ROUND) for each in value.rounds}))
            return value.model_copy(update={"round": min(value.round, LAST_ROUND), "rounds": rounds})
        case int() if section == "targets":
            return min(value, TARGETS)
    return value


def _capped(config: ModelT) -> ModelT:
    """Return `config` with options cut where it allows their small values."""
    values = config.model_dump()
    small = {
        name: cap
        for name, cap in CAPS.items()
        if isinstance(values.get(name), int) and values[name] > cap and not isinstance(values[name], bool)
    }
    try:
        return type(config).model_validate({**values, **small}) if small else config
    except ValidationError:
        return config
