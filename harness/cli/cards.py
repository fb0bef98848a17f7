"""A plug-in's card in words: what it does, its options, what it declares; read without torch or numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from defenses.catalog import adaptation
from fl.cards import (
    PARTS,
    AnyCard,
    AttackCard,
    DataCard,
    DataInfo,
    DefenseCard,
    MetricCard,
    ModelCard,
    NoiseBudget,
)
from fl.data.assets import ASSETS, cached
from fl.errors import BenchError
from fl.specs import Config, Task

EXAMPLE_DATA = DataInfo(
    task=Task("multiclass", 10),
    channels=3,
    size=32,
    images=dict.fromkeys(PARTS, 1),
    public=True,
    fingerprint="",
)
"""What a model's traits are shown for: ten classes of 32 x 32 RGB images."""

_BOUNDS = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))


def default_config(card: AnyCard) -> Config | None:
    """Return the configuration with every option at its default, or None if some have none."""
    try:
        config: Config = card.config()
    except ValidationError:
        return None
    return config


def budget_of(card: DefenseCard[Any]) -> NoiseBudget | None:
    """Return the noise budget at the default options, or None if there are no defaults."""
    config = default_config(card)
    return None if config is None else card.noise_budget(config)


def unmirrored_of(card: DefenseCard[Any]) -> str | None:
    """Return why there is no mirror at the default options, if there is none."""
    config = default_config(card)
    return None if config is None else card.unmirrored(config)


def card_facts(card: AnyCard) -> dict[str, Any]:
    """Return everything a card says, as plain JSON."""
    return {
        "name": card.name,
        "version": card.version,
        "summary": card.summary,
        "implementation": card.implementation,
        "reference": card.reference.text if card.reference else None,
        "bibtex": card.reference.bibtex or None if card.reference else None,
        **_declared(card),
        "options": options(card.config),
    }


def options(config: type[Config]) -> list[dict[str, Any]]:
    """Return the options of a configuration: name, type, range, default and meaning of each."""
    schema = config.model_json_schema()
    definitions: Mapping[str, Any] = schema.get("$defs", {})
    required = set(schema.get("required", ()))
    return [
        {
            "name": name,
            "type": _type(field, definitions),
            "default": None if name in required else _default(config, name),
            "required": name in required,
            "description": field.get("description", ""),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _default(config: type[Config], name: str) -> Any:
    value = config.model_fields[name].get_default(call_default_factory=True, validated_data={})
    return value.model_dump(mode="json") if isinstance(value, Config) else value


def _type(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return a JSON schema's type and range in words, such as `integer >= 1`."""
    if "$ref" in field:
        return _type(definitions[field["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in field or "oneOf" in field:
        choices = [_type(choice, definitions) for choice in field.get("anyOf", field.get("oneOf", ()))]
        return " or ".join(choices)
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    kind = {"object": "mapping", "array": "list", "null": "none"}.get(
        field.get("type", ""), field.get("type")
    )
    if kind == "list" and "items" in field:
        kind = f"list of {_type(field['items'], definitions)}"
    bounds = [f"{sign} {field[key]:g}" for key, sign in _BOUNDS if key in field]
    return " ".join([kind or "any value", " and ".join(bounds)]).rstrip()


def _declared(card: AnyCard) -> dict[str, Any]:
    match card:
        case AttackCard():
            config = default_config(card)
            return {
                "family": card.family,
                "observes": sorted(card.observes),
                "gradient_evaluations_per_target": None if config is None else card.evaluations(config),
                "resources": asdict(card.resources),
            }
        case DefenseCard():
            budget = budget_of(card)
            return {
                "noise_budget": None if budget is None else asdict(budget),
                "acts_through": sorted(card.hooks),
                "adaptive_attackers": adaptation(card, default_config(card)),
                "without_a_mirror": unmirrored_of(card),
                "resources": asdict(card.resources),
            }
        case DataCard():
            return _data_facts(card)
        case ModelCard():
            return _model_facts(card)
        case MetricCard():
            return {
                "column": card.column,
                "unit": card.unit or None,
                "scores": card.kind,
                "leaks_more": f"{card.leaks_more} values",
                "smallest": card.lower,
                "largest": card.upper,
            }
        case _:
            return {}


def _data_facts(card: DataCard[Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "licence": card.licence,
        "parts": card.parts,
        "classes": list(card.class_names),
        "ranked_by_utility": card.ranked,
        "assets": {
            name: "in the cache" if cached(name) else f"get it: {ASSETS[name].command}"
            for name in card.assets
        },
    }
    config = default_config(card)
    if config is None:
        return facts
    try:
        info = card.describe(config)
    except BenchError as error:
        return {**facts, "problem": str(error)}
    return {
        **facts,
        "task": f"{info.task.kind}, {info.task.classes} classes",
        "images": f"{info.channels} x {info.size} x {info.size} (channels x height x width)",
        "images_by_part": dict(info.images),
        "patients_or_sources_in_private": info.groups,
        "sensitive_regions": "marked" if info.regions else None,
        "may_be_shown": info.public,
    }


def _model_facts(card: ModelCard[Any]) -> dict[str, Any]:
    config = default_config(card)
    if config is None:
        return {}
    traits = asdict(card.traits(config, EXAMPLE_DATA))
    traits["mflop_per_image"] = round(traits["mflop_per_image"], 3)
    return {f"traits_at_3x{EXAMPLE_DATA.size}x{EXAMPLE_DATA.size}": traits}
