"""The JSON Schema of a matrix, from the installed plug-ins' own configurations: completion for editors.

It knows names, options, types and ranges. What depends on several keys at once, or on files, is left to
`bench validate`, which says it better; so every file that `bench validate` accepts also fits the schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from fl.cards import AnyCard
from fl.presets import PRESETS
from fl.specs import FederationSpec, ObserveSpec, ThreatModel
from harness.config.plugins import Plugins
from harness.config.rules import RULE_KEYS
from harness.config.settings import (
    DURATION,
    LARGEST_SEED,
    NAME,
    STAGES,
    ResourceOverride,
    StoreSettings,
    requestable,
)

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SWEEP: Schema = {"$ref": "#/$defs/sweep"}
NUMBER: Schema = {"type": "number"}
NAMED = (
    *("data", "public", "model", "defense", "attack"),
    *(r"federation\.partition", r"federation\.schedule", r"threat_model\.manipulation"),
)
"""What has a name that decides which options there are; below it, every dotted path is let pass."""
DESCRIPTIONS = {
    "data": "data set whose private part is dealt out to the clients",
    "public": "another data set whose public part is the attacker's",
    "model": "classifier that the clients train",
    "federation": "how the clients train together",
    "defense": "what clients or the server do so that less leaks",
    "attack": "from what the adversary sees to images",
    "attacker": "static ignores the defense, adaptive knows and models it",
    "threat_model": "who attacks, how it behaves and what it knows",
    "observe": "what the adversary sees, and when",
    "targets": "targets that a trial attacks, drawn without replacement",
    "observation": "a recorded observation instead of data, model and federation",
    "noise_budget": "the defense's strength, in its own unit",
}


def matrix_schema(plugins: Plugins) -> Schema:
    """Return the schema of a matrix that names these plug-ins, as plain JSON."""
    cards: dict[str, list[Any]] = {
        "data": list(plugins.datasets),
        "model": list(plugins.models),
        "defense": list(plugins.defenses),
        "attack": list(plugins.attacks),
        "manipulation": list(plugins.manipulations),
    }
    models = {card.config for each in cards.values() for card in each}
    models |= {FederationSpec, ObserveSpec, ThreatModel, ResourceOverride, StoreSettings}
    ordered = sorted(models, key=lambda model: (model.__module__, model.__qualname__))
    refs, generated = models_json_schema([(model, "validation") for model in ordered])
    defs: Schema = {name: _open(schema) for name, schema in generated["$defs"].items()}
    for kind, each in cards.items():
        for config in {card.config: None for card in each}:  # several cards may share one
            sharing = [card for card in each if card.config is config]
            own = _deref(refs[config, "validation"], defs)
            defs[_options_of(kind, sharing[0])] = _named(sharing, own, budget=kind == "defense")
    _write_out_shorthands(refs, defs, cards)
    values = _cell(refs, defs, cards)
    defs |= {f"value.{key}": value for key, value in values.items()}
    defs["sweep"] = _sweep()
    cell = {key: {"$ref": f"#/$defs/value.{key}"} for key in values}
    defs["cell"] = _mapping({**cell, "noise_budget": _budget()}, free=NAMED)
    axes = {key: _axis(value) for key, value in cell.items()}
    defs["axes"] = _mapping(axes, free=NAMED, free_value=_axis({}))
    return {"$schema": DIALECT, **_document(refs, axes, cards), "$defs": dict(sorted(defs.items()))}


def _document(refs: Mapping[Any, Schema], axes: Schema, cards: Mapping[str, list[Any]]) -> Schema:
    resources = dict.fromkeys(STAGES, refs[ResourceOverride, "validation"])
    for card in (*cards["attack"], *cards["defense"]):
        resources[card.name] = refs[ResourceOverride, "validation"]
    together = {"$ref": "#/$defs/axes"}
    extra = {
        "noise_budget": _mapping({card.name: _budget() for card in cards["defense"]}),
        "zip": {"anyOf": [together, {"type": "array", "items": together}]},
    }
    matrix = _mapping({**axes, **extra}, free=NAMED, free_value=_axis({}))
    seed = {"type": "integer", "minimum": 0, "maximum": LARGEST_SEED}
    rules = {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": f"^({'|'.join(RULE_KEYS)})(\\..+)?$"},
    }
    properties = {
        "version": {"const": 1, "description": "version of this grammar"},
        "name": {
            "type": "string",
            "pattern": f"^{NAME}$",
            "description": "the results folder; by default the file's name",
        },
        "extends": {"type": "string", "description": "another matrix whose entries lie below this one's"},
        "seeds": {
            "anyOf": [{"type": "array", "items": seed, "minItems": 1, "uniqueItems": True}, SWEEP],
            "description": "every cell runs once with each",
        },
        "defaults": {"$ref": "#/$defs/cell", "description": "below every cell"},
        "matrix": {**matrix, "description": "the axes: every combination of their values is a cell"},
        "exclude": {
            "type": "array",
            "items": rules,
            "description": "removes cells that match all keys of an entry",
        },
        "include": {
            "type": "array",
            "items": {"$ref": "#/$defs/cell"},
            "description": "adds cells; the axes do not apply to them",
        },
        "resources": _mapping(resources),
        "store": refs[StoreSettings, "validation"],
        "max_failures": {
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "number", "minimum": 0, "maximum": 1}],
            "description": "stop once more trials than this (or a larger share of them) failed",
        },
        "metrics": {
            "type": "array",
            "items": {"enum": list(requestable())},
            "description": "metrics to measure that are costly, and measured only where a matrix names them",
        },
    }
    return {
        "title": "leakbench matrix",
        "type": "object",
        "properties": properties,
        "required": ["version"],
        "additionalProperties": False,
    }


def _cell(refs: Mapping[Any, Schema], defs: Schema, cards: Mapping[str, list[Any]]) -> Schema:
    """Return the schema of each key of a cell but the noise budget, with dotted keys of plain sections."""
    defs["dataset"] = _plugin("data", cards["data"])
    found: Schema = {
        "data": {"$ref": "#/$defs/dataset"},
        "public": {"anyOf": [{"$ref": "#/$defs/dataset"}, {"type": "null"}]},
        "model": _plugin("model", cards["model"]),
        "defense": _defense(cards["defense"]),
        "attack": _plugin("attack", cards["attack"]),
        "attacker": _or_sweep({"enum": ["static", "adaptive"]}),
        "targets": _or_sweep({"type": "integer", "minimum": 1}),
    }
    public = found["public"]
    observation = {"file": {"type": "string", "description": "as written by `bench record`"}}
    found["observation"] = _mapping({**observation, "public": public})
    found |= {"observation.file": observation["file"], "observation.public": public}
    plain = {"federation": FederationSpec, "observe": ObserveSpec, "threat_model": ThreatModel}
    for section, model in plain.items():
        found[section] = dict(refs[model, "validation"])
        found |= _dotted(section, _deref(refs[model, "validation"], defs), defs)
    for key, text in DESCRIPTIONS.items():
        if key in found:
            found[key] = {**found[key], "description": text}
    return found


def _dotted(section: str, schema: Schema, defs: Schema) -> Schema:
    found: Schema = {}
    for name, value in schema.get("properties", {}).items():
        found[f"{section}.{name}"] = value
        inner = next((arm for arm in value["anyOf"] if arm.get("$ref", "").startswith("#/$defs/")), None)
        if inner is not None and inner != SWEEP:
            found |= _dotted(f"{section}.{name}", _deref(inner, defs), defs)
    return found


def _options_of(kind: str, card: AnyCard) -> str:
    """Return the name in `$defs` of a card's options."""
    return f"{kind}.{card.config.__module__}.{card.config.__qualname__}"


def _plugin(kind: str, cards: Iterable[AnyCard]) -> Schema:
    """Return the schema of a section that names a plug-in: a bare name, or a mapping with its options."""
    sharing: dict[str, list[str]] = {}
    for card in cards:
        sharing.setdefault(_options_of(kind, card), []).append(card.name)
    names = [name for each in sharing.values() for name in each]
    options = [
        {
            "if": {"properties": {"name": {"enum": each}}, "required": ["name"]},
            "then": {"$ref": f"#/$defs/{target}"},
        }
        for target, each in sharing.items()
    ]
    name = {"anyOf": [{"enum": names}, SWEEP]}
    return {"anyOf": [{"enum": names}, {"type": "object", "properties": {"name": name}, "allOf": options}]}


def _defense(cards: Iterable[AnyCard]) -> Schema:
    single = _plugin("defense", cards)
    links = {"type": "array", "items": {"anyOf": [single, SWEEP]}, "minItems": 1}
    chain = _mapping({"chain": links, "noise_budget": _budget()}) | {"required": ["chain"]}
    single["anyOf"][1]["not"] = {"required": ["chain"]}
    return {"anyOf": [*single["anyOf"], chain]}


def _named(cards: list[AnyCard], own: Schema, *, budget: bool) -> Schema:
    """Return the schema of the options that these plug-ins share, beside their names."""
    names = [card.name for card in cards]
    properties = {"name": {"enum": names}, **own.get("properties", {})}
    if budget:
        properties["noise_budget"] = _budget()
    if budget and names == ["chain"]:
        properties["links"] = {"type": "array"}
    summaries = " / ".join(card.summary for card in cards)
    return {**own, "title": ", ".join(names), "description": summaries, "properties": properties}


def _write_out_shorthands(refs: Mapping[Any, Schema], defs: Schema, cards: Mapping[str, list[Any]]) -> None:
    """Allow what a matrix may abbreviate inside plain sections: bare names, and times such as 90s."""
    federation = _deref(refs[FederationSpec, "validation"], defs)["properties"]
    for part in (federation["partition"], federation["schedule"]):
        arms = [arm for choice in part["anyOf"] for arm in choice.get("oneOf", ())]
        names = [_deref(arm, defs)["properties"]["name"]["anyOf"][0]["const"] for arm in arms]
        part["anyOf"].insert(0, {"enum": names})
    presets = {"description": "fills in what is left unsaid", "enum": sorted(PRESETS)}
    federation["preset"] = _or_sweep(presets)
    threat = _deref(refs[ThreatModel, "validation"], defs)["properties"]
    manipulations = _plugin("manipulation", cards["manipulation"])["anyOf"] if cards["manipulation"] else []
    threat["manipulation"] = {"anyOf": [*manipulations, {"type": "null"}, SWEEP]}
    limits = _deref(refs[ResourceOverride, "validation"], defs)["properties"]
    limits["timeout"]["anyOf"].insert(0, {"type": "string", "pattern": f"^{DURATION}$"})


def _open(schema: Any) -> Any:
    """Let a sweep stand for any value, and leave out what is required: the rest may come from defaults."""
    if isinstance(schema, list):
        return [_open(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    opened = {key: _open(value) for key, value in schema.items() if key not in ("required", "properties")}
    if "properties" in schema:
        opened["properties"] = {name: _or_sweep(value) for name, value in schema["properties"].items()}
    if isinstance(schema.get("items"), dict):
        opened["items"] = _or_sweep(schema["items"])
    return opened


def _or_sweep(schema: Schema) -> Schema:
    opened = _open(schema)
    kept = {key: opened.pop(key) for key in ("title", "description", "default") if key in opened}
    arms = opened["anyOf"] if set(opened) == {"anyOf"} else [opened]
    return {**kept, "anyOf": [*arms, SWEEP]}


def _axis(value: Schema) -> Schema:
    return {"anyOf": [{"type": "array", "items": {"anyOf": [value, SWEEP]}, "minItems": 1}, SWEEP]}


def _budget() -> Schema:
    values = {"type": "array", "items": {"anyOf": [NUMBER, SWEEP]}, "minItems": 1}
    return {
        "description": DESCRIPTIONS["noise_budget"],
        "anyOf": [NUMBER, values, {"const": "auto"}, SWEEP],
    }


def _sweep() -> Schema:
    """Several values of the place where it stands."""
    spaced = _mapping({"start": NUMBER, "stop": NUMBER, "num": {"type": "integer", "minimum": 2}})
    spaced["required"] = ["start", "stop", "num"]
    bounds = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3}
    words = {
        "grid": {"type": "array", "minItems": 1, "description": "these values"},
        "linspace": {**spaced, "description": "evenly spaced, both ends included"},
        "geomspace": {**spaced, "description": "evenly spaced in the logarithm, both ends included"},
        "range": {**bounds, "description": "whole numbers [start, stop, step], the stop left out"},
    }
    return {**_mapping(words), "minProperties": 1, "maxProperties": 1}


def _mapping(properties: Schema, *, free: Iterable[str] = (), free_value: Schema | None = None) -> Schema:
    """Return the schema of a mapping with these keys, and dotted ones below the sections in `free`."""
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if sections := "|".join(free):
        schema["patternProperties"] = {f"^({sections})\\..+$": free_value or {}}
    return schema


def _deref(schema: Schema, defs: Schema) -> Schema:
    """Return what a reference to `$defs` leads to."""
    target: Schema = defs[schema["$ref"].removeprefix("#/$defs/")]
    return target
