"""Names for people: what tells a trial's parts from others of the same name, and nothing else.

Two configurations of one defense are told apart by the options they differ in; the noise budget has a column
of its own and is left out, and so are choices and switches that stand at their defaults.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from attacks import ATTACKS
from defenses import DEFENSES
from fl.data import DATASETS
from fl.models import MODELS
from fl.specs import canonical_json, digest
from harness.analysis.measures import Seen, seen

if TYPE_CHECKING:
    import pandas as pd

    from fl.cards import NoiseBudget
    from fl.registry import Registry

T = TypeVar("T")
Flat = dict[str, Any]
LONG_LIST = 10
"""Lists with more values than this are told by their ends, their length and a hash."""
NESTED = ("federation", "observe", "threat_model")
"""Sections of a spec that are mappings of options, not plug-ins."""


def attack_of(attack: str, attacker: str) -> str:
    """Return an attack's label, with what its attacker knows where that is more than the observation."""
    return attack if attacker == "static" else f"{attack}, {attacker}"


def with_labels(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials with what tells them apart added, for people.

    Added are `setting`, `condition`, `circumstances`, `seen`, `defense_label` and `attack_label`. A setting
    is a data set and a model, or two settings where the adversary sees updates in some trials and models in
    others (`seen`). Conditions (batch size, observed round, ...) are what else differs within a setting
    besides defense, attack, attacker and seed; circumstances are conditions but for the observed round.
    `round` becomes the round that is attacked, where `observe.rounds` names several.

    Args:
        trials: Rows of `trials/`, each with its `spec`.
    """
    specs = [json.loads(spec) for spec in trials["spec"]]
    data = _plugin_labels(_each(specs, _source), DATASETS)
    models = _plugin_labels(_each(specs, lambda spec: spec.get("model")), MODELS)
    views = [seen(spec["observe"]["kind"]) for spec in specs]
    settings = _settings(
        [f"{one}, {other}" if other else one for one, other in zip(data, models, strict=True)], views
    )
    return trials.assign(
        setting=settings,
        condition=_conditions(settings, _each(specs, _circumstances)),
        circumstances=_conditions(settings, _each(specs, _without_round)),
        seen=views,
        round=[_attacked_round(spec["observe"]) for spec in specs],
        defense_label=_plugin_labels(_without_budgets(_each(specs, lambda spec: spec["defense"])), DEFENSES),
        attack_label=_plugin_labels(_each(specs, lambda spec: spec["attack"]), ATTACKS),
    )


def _each(specs: Sequence[Mapping[str, Any]], part: Callable[[Mapping[str, Any]], T]) -> list[T]:
    """Return `part` of every spec; equal parts are one object, so that what is told of them is told once."""
    known: dict[str, T] = {}
    return [known.setdefault(json.dumps(found), found) for found in map(part, specs)]


def _settings(names: Sequence[str], views: Sequence[Seen]) -> list[str]:
    """Return the names of settings: two of one where models are seen in some trials, updates in others."""
    both = {name for name, view in zip(names, views, strict=True) if view == "updates"}
    return [
        f"{name}, model inversion" if view == "models" and name in both else name
        for name, view in zip(names, views, strict=True)
    ]


def _source(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    recorded = spec.get("recorded")
    if recorded is not None:
        return {"name": f"recorded {recorded['sha256'][:12]}", "config": {}}
    found: Mapping[str, Any] = spec["data"]
    return found


def _circumstances(spec: Mapping[str, Any]) -> Flat:
    sections = {section: spec[section] for section in NESTED if spec.get(section) is not None}
    if spec.get("public") is not None:
        sections["public"] = {"name": spec["public"]["name"], **spec["public"]["config"]}
    return {**_flattened(sections), "targets": spec["targets"]}


def _attacked_round(observe: Mapping[str, Any]) -> int:
    attacked: int = max(observe["rounds"]) if observe.get("rounds") else observe["round"]
    return attacked


def _without_round(spec: Mapping[str, Any]) -> Flat:
    return {
        key: value
        for key, value in _circumstances(spec).items()
        if key not in ("observe.round", "observe.rounds")
    }


def _without_budgets(defenses: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    distinct = {id(defense): defense for defense in defenses}
    without = {key: _without_budget(defense) for key, defense in distinct.items()}
    return [without[id(defense)] for defense in defenses]


def _without_budget(defense: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a defense without the option that is its noise budget; a chain's is its last link's."""
    config = defense["config"]
    if "links" not in config:
        return {"name": defense["name"], "config": _options_but_budget(defense)}
    *links, last = config["links"]
    configs = [*(link["config"] for link in links), _options_but_budget(last)]
    return {
        "name": " + ".join(link["name"] for link in config["links"]),
        "config": {f"link {number}": options for number, options in enumerate(configs, start=1)},
    }


def _options_but_budget(defense: Mapping[str, Any]) -> Flat:
    budget = budget_of(defense)
    flat = _flattened(defense["config"])
    return flat if budget is None else {key: value for key, value in flat.items() if key != budget.field}


def budget_of(defense: Mapping[str, Any]) -> NoiseBudget | None:
    """Return the noise budget of a defense in a spec, or None if its plug-in is not installed as it was."""
    if defense["name"] not in DEFENSES:
        return None
    card = DEFENSES.get(defense["name"])
    try:
        return card.noise_budget(card.config(**defense["config"]))
    except ValidationError:
        return None


def _plugin_labels(plugins: Sequence[Mapping[str, Any] | None], registry: Registry[Any]) -> list[str]:
    """Return each plug-in's name, with the options in which plug-ins of that name differ."""
    distinct = {id(plugin): plugin for plugin in plugins if plugin is not None}
    flats = {key: _flattened(plugin["config"]) for key, plugin in distinct.items()}
    by_name: defaultdict[str, list[Flat]] = defaultdict(list)
    for key, plugin in distinct.items():
        by_name[plugin["name"]].append(flats[key])
    differing = {name: _differing(configs) for name, configs in by_name.items()}
    usual = {name: _usual(registry, name) for name in by_name}
    labels = {
        key: _label(
            name, {k: v for k, v in flats[key].items() if usual[name].get(k, ...) != v}, differing[name]
        )
        for key, name in ((key, plugin["name"]) for key, plugin in distinct.items())
    }
    return [labels.get(id(plugin), "") for plugin in plugins]


def _usual(registry: Registry[Any], name: str) -> Flat:
    """Return the defaults of a plug-in's switches and choices; a number is told even if it is the default."""
    if name not in registry:
        return {}
    fields = registry.get(name).config.model_fields.items()
    return {key: field.default for key, field in fields if isinstance(field.default, bool | str)}


def _conditions(settings: Sequence[str], rows: Sequence[Flat]) -> list[str]:
    by_setting: defaultdict[str, dict[int, Flat]] = defaultdict(dict)
    for setting, row in zip(settings, rows, strict=True):
        by_setting[setting][id(row)] = row
    texts: dict[tuple[str, int], str] = {}
    for setting, distinct in by_setting.items():
        keys = _differing(list(distinct.values()))
        texts |= {(setting, key): _options(row, keys) for key, row in distinct.items()}
    return [texts[setting, id(row)] for setting, row in zip(settings, rows, strict=True)]


def _label(name: str, config: Flat, keys: list[str]) -> str:
    options = _options(config, keys)
    return f"{name} ({options})" if options else name


def _options(config: Flat, keys: list[str]) -> str:
    named = Counter(_short(key) for key in keys)
    shown = [
        (key.replace(".", " ").replace("_", " ") if named[_short(key)] > 1 else _short(key), config[key])
        for key in keys
        if config.get(key) is not None
    ]
    return ", ".join(_words(name, value) for name, value in shown)


def _words(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return f"{name} {_text(value)}"


def _short(key: str) -> str:
    """Return an option's own name in words, without its section."""
    return key.rpartition(".")[2].replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, list) and len(value) > LONG_LIST:
        ends = f"[{_text(value[0])}, ..., {_text(value[-1])}]"
        return f"{ends} ({len(value)} values, {digest(canonical_json(value))[:6]})"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def _differing(configs: Sequence[Flat]) -> list[str]:
    """Return the keys in which configurations differ; one that is absent somewhere has its default there."""
    keys = {key for config in configs for key in config}
    return [key for key in sorted(keys) if len({json.dumps(c.get(key)) for c in configs}) > 1]


def _flattened(config: Mapping[str, Any], prefix: str = "") -> Flat:
    flat: Flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
