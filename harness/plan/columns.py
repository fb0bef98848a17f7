"""A trial's spec as columns of a table: one per parameter, typed by declarations and never by values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from fl.registry import Registry
from fl.specs import FederationSpec, ObserveSpec, Plugin, ThreatModel, TrialSpec, canonical_json
from harness.config.plugins import Plugins, installed
from harness.config.validate import arms, models_in

if TYPE_CHECKING:
    from harness.config.matrix import Matrix

ColumnType = Literal["int", "float", "bool", "str"]
Value = int | float | bool | str | None

CORE: Mapping[str, ColumnType] = {
    "dataset": "str",
    "model": "str",
    "defense": "str",
    "noise_budget": "float",
    "attack": "str",
    "attacker": "str",
    "round": "int",
    "targets": "int",
    "seed": "int",
    "public": "str",
    "recorded": "str",
    "data_version": "int",
    "model_version": "int",
    "defense_version": "int",
    "attack_version": "int",
}
"""Columns that every trial has, whatever its plug-ins."""
UNDER_OTHER_NAMES = frozenset({"observe_round"})


def flatten(spec: TrialSpec) -> dict[str, Value]:
    """Return the columns of a trial: the core ones, and `<section>_<field>` for every field it has."""
    columns: dict[str, Value] = {
        "dataset": spec.data.name if spec.data else None,
        "model": spec.model.name if spec.model else None,
        "defense": spec.defense.name,
        "noise_budget": float(spec.noise_budget),
        "attack": spec.attack.name,
        "attacker": spec.attacker,
        "round": spec.observe.round,
        "targets": spec.targets,
        "seed": spec.seed,
        "public": spec.public.name if spec.public else None,
        "recorded": spec.recorded.sha256 if spec.recorded else None,
        "data_version": spec.data.version if spec.data else None,
        "model_version": spec.model.version if spec.model else None,
        "defense_version": spec.defense.version,
        "attack_version": spec.attack.version,
    }
    for section, value in _sections(spec).items():
        if value is not None:
            columns.update(parameters(value, section))
    return columns


def flatten_stored(canonical: str, plugins: Plugins | None = None) -> dict[str, Value]:
    """Return the columns of a trial from its stored canonical JSON.

    Fields that joined a plug-in later have their default, which is what the trial ran with; a plug-in that is
    not installed in the stored version gives the fields that were stored.
    """
    plugins = plugins or installed()
    stored: dict[str, Any] = json.loads(canonical)
    columns: dict[str, Value] = {
        "noise_budget": float(stored["noise_budget"]),
        "attacker": stored["attacker"],
        "round": stored["observe"]["round"],
        "targets": stored["targets"],
        "seed": stored["seed"],
        "public": (stored["public"] or {}).get("name"),
        "recorded": (stored["recorded"] or {}).get("sha256"),
    }
    registries: dict[str, Registry[Any]] = {
        "data": plugins.datasets,
        "model": plugins.models,
        "defense": plugins.defenses,
        "attack": plugins.attacks,
    }
    for section, registry in registries.items():
        plugin = stored[section] or {}
        columns["dataset" if section == "data" else section] = plugin.get("name")
        columns[f"{section}_version"] = plugin.get("version")
        columns.update(_stored_plugin(section, plugin, registry))
    columns.update(_stored_plugin("public", stored["public"] or {}, plugins.datasets))
    models: dict[str, type[BaseModel]] = {
        "federation": FederationSpec,
        "observe": ObserveSpec,
        "threat_model": ThreatModel,
    }
    for section, model in models.items():
        columns.update(_stored(section, stored[section], model))
    return columns


def columns_of(matrix: Matrix) -> dict[str, ColumnType]:
    """Return every column that `flatten` can give for the matrix's trials, with its type.

    A name that two plug-ins declare as `int` and `float` is `float`; any other disagreement is `str`
    (`as_columns` converts the values).
    """
    pools = matrix.pools
    declared: list[tuple[str, ColumnType]] = list(CORE.items())
    for section in ("data", "public", "model", "attack"):
        for plugin in {v.value.name: v.value for v in pools.of(section).variants if v.value}.values():
            declared += declarations(type(plugin.config), section)
    for protection in pools.defense.variants:
        declared += declarations(type(protection.value.plugin.config), "defense")
    for section, model in (("federation", FederationSpec), ("observe", ObserveSpec)):
        declared += declarations(model, section)
    declared += declarations(ThreatModel, "threat_model")
    return _agreed(declared)


def as_columns(values: Mapping[str, Value], columns: Mapping[str, ColumnType]) -> dict[str, Value]:
    """Return `values` in the types of `columns`; columns that are not in `values` are null."""
    return {name: _as(values.get(name), kind) for name, kind in columns.items()}


def parameters(config: BaseModel, prefix: str) -> Iterator[tuple[str, Value]]:
    """Yield the columns of one configuration; what is no scalar is canonical JSON."""
    dumped = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        value, column = getattr(config, name), f"{prefix}_{name}"
        if isinstance(value, BaseModel):
            yield from parameters(value, column)
        elif column not in UNDER_OTHER_NAMES and not (value is None and models_in(field.annotation)):
            yield column, _as(dumped[name], _type(field.annotation))


def declarations(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, ColumnType]]:
    """Yield the columns that configurations of `model` have, with their types."""
    for name, field in model.model_fields.items():
        column = f"{prefix}_{name}"
        nested = models_in(field.annotation)
        for each in nested:
            yield from declarations(each, column)
        if len(nested) < len(arms(field.annotation)) and column not in UNDER_OTHER_NAMES:
            yield column, _type(field.annotation)


def _sections(spec: TrialSpec) -> dict[str, BaseModel | None]:
    plugins: dict[str, Plugin | None] = {
        "data": spec.data,
        "public": spec.public,
        "model": spec.model,
        "defense": spec.defense,
        "attack": spec.attack,
    }
    sections: dict[str, BaseModel | None] = {
        name: plugin.config if plugin else None for name, plugin in plugins.items()
    }
    return sections | {
        "federation": spec.federation,
        "observe": spec.observe,
        "threat_model": spec.threat_model,
    }


def _stored_plugin(section: str, plugin: Mapping[str, Any], registry: Registry[Any]) -> dict[str, Value]:
    if not plugin:
        return {}
    card = registry.get(plugin["name"]) if plugin["name"] in registry else None
    model = card.config if card is not None and card.version == plugin["version"] else None
    return _stored(section, plugin["config"], model)


def _stored(
    section: str, fields: Mapping[str, Any] | None, model: type[BaseModel] | None
) -> dict[str, Value]:
    if fields is None:
        return {}
    if model is not None:
        try:
            return dict(parameters(model.model_validate_json(canonical_json(fields)), section))
        except ValidationError:
            pass  # declared differently when it was stored
    plain = {f"{section}_{name}": value for name, value in fields.items()}
    return {
        name: value if isinstance(value, int | float | str | None) else canonical_json(value)
        for name, value in plain.items()
    }


def _agreed(declared: Iterable[tuple[str, ColumnType]]) -> dict[str, ColumnType]:
    columns: dict[str, ColumnType] = {}
    for name, kind in declared:
        columns[name] = _common({kind, columns.get(name, kind)})
    return columns


def _type(annotation: Any) -> ColumnType:
    kinds: set[ColumnType] = set()
    for arm in arms(annotation):
        kinds |= (
            {_name(type(value)) for value in get_args(arm)} if get_origin(arm) is Literal else {_name(arm)}
        )
    return _common(kinds)


def _name(kind: Any) -> ColumnType:
    names: dict[Any, ColumnType] = {bool: "bool", int: "int", float: "float"}
    return names.get(kind, "str")


def _common(kinds: set[ColumnType]) -> ColumnType:
    if len(kinds) == 1:
        return next(iter(kinds))
    return "float" if kinds == {"int", "float"} else "str"


def _as(value: Any, kind: ColumnType) -> Value:
    if value is None or (kind == "str" and isinstance(value, str)):
        return value
    match kind:
        case "float":
            return float(value)
        case "int":
            return int(value)
        case "bool":
            return bool(value)
        case _:
            return canonical_json(value)
