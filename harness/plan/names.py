"""Names of cells for people: the plug-ins, and of their options only those that differ in the matrix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from defenses.catalog import ChainConfig
from fl.specs import ObserveSpec, Plugin, Recorded
from harness.config.matrix import Matrix
from harness.config.sections import SECTIONS, Cell, Protection
from harness.plan.columns import Value, parameters

ORDER = ("data", "model", "defense", "attack", "attacker")
"""Sections in the order of a name; the others follow."""
BUDGET = "noise_budget"


class _Described(NamedTuple):
    name: str
    options: Mapping[str, Value]


class CellNames:
    """Names the cells of one matrix, e.g. `gaussian-0.01__dlg__batch_size=8`."""

    def __init__(self, matrix: Matrix) -> None:
        """Take the sections' variants; those with a single one are left out of names."""
        rest = (section for section in SECTIONS if section not in ORDER)
        self._labels = [
            (SECTIONS.index(section), _labels(section, matrix))
            for section in (*ORDER, *rest)
            if len(matrix.pools.of(section)) > 1
        ]
        self._alone = matrix.pools.attack[0].name

    def name(self, cell: Cell, seed: int) -> str:
        """Return the name of the trial of `cell` with `seed`."""
        parts = [labels[cell[place]] for place, labels in self._labels if labels[cell[place]]]
        return "__".join([*(parts or [self._alone]), f"seed={seed}"])


def _labels(section: str, matrix: Matrix) -> list[str]:
    """Return one label per variant: its name and the options that tell it from those of the same name."""
    described = [_described(section, v.value, matrix) for v in matrix.pools.of(section).variants]
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name, options in described:
        for key, value in options.items():
            values[name, key].add(_shown(value))
    return [
        "-".join(
            [name] * bool(name)
            + [
                _shown(value) if key == BUDGET else f"{key}={_shown(value)}"
                for key, value in options.items()
                if len(values[name, key]) > 1
            ]
        )
        for name, options in described
    ]


def _described(section: str, value: Any, matrix: Matrix) -> _Described:
    if value is None:
        return _Described("", {})
    if section == "defense":
        return _described_defense(value, matrix)
    if isinstance(value, Plugin):
        return _Described(value.name, _options(value.config))
    if isinstance(value, Recorded):
        return _Described(f"recorded-{value.sha256[:8]}", {})
    if isinstance(value, ObserveSpec):
        value, options = "", {"round": value.round, **_options(value)}
    elif isinstance(value, BaseModel):
        value, options = "", _options(value)
    else:
        value, options = ("", {section: value}) if section == "targets" else (value, {})
    return _Described(value, options)


def _described_defense(value: Protection, matrix: Matrix) -> _Described:
    name, config = value.plugin.name, value.plugin.config
    budget = matrix.plugins.defenses.get(name).noise_budget(config).field
    if isinstance(config, ChainConfig):
        name = "+".join(link.name for link in config.links)
        options = {
            f"link{i}.{k}": v for i, link in enumerate(config.links) for k, v in _options(link.config).items()
        }
        budget = budget.replace("links.-1.config", f"link{len(config.links) - 1}")
    else:
        options = _options(config)
    return _Described(name, {BUDGET: value.noise_budget, **{k: v for k, v in options.items() if k != budget}})


def _options(config: BaseModel) -> dict[str, Value]:
    return {name.removeprefix("_"): value for name, value in parameters(config, "")}


def _shown(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool | None) else str(value)
