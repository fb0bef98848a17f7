"""From the canonical spec that a row holds back to the trial."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fl.errors import UsageError
from fl.registry import Registry
from fl.specs import FederationSpec, ObserveSpec, Plugin, ThreatModel, TrialSpec, canonical_json
from harness.config.plugins import Plugins, installed


def read_spec(canonical: str, plugins: Plugins | None = None) -> TrialSpec:
    """Return the trial whose canonical spec this is.

    Args:
        canonical: `TrialSpec.canonical`, as in the column `spec`.
        plugins: Where plug-ins are looked up; all installed ones by default.

    Raises:
        UsageError: If a plug-in is not installed in the version that ran, or the trial was one on a recorded
            observation, of which only the digest is stored.
    """
    plugins = plugins or installed()
    stored: dict[str, Any] = json.loads(canonical)
    if stored["recorded"] is not None:
        raise UsageError("expected a trial with a federation, got one on a recorded observation")
    try:
        spec = TrialSpec(
            data=_plugin(stored["data"], plugins.datasets),
            model=_plugin(stored["model"], plugins.models),
            federation=FederationSpec.model_validate_json(canonical_json(stored["federation"])),
            defense=_required(stored["defense"], plugins.defenses),
            noise_budget=stored["noise_budget"],
            threat_model=ThreatModel.model_validate_json(canonical_json(stored["threat_model"])),
            attacker=stored["attacker"],
            attack=_required(stored["attack"], plugins.attacks),
            observe=ObserveSpec.model_validate_json(canonical_json(stored["observe"])),
            targets=stored["targets"],
            seed=stored["seed"],
            public=_plugin(stored["public"], plugins.datasets),
        )
    except ValidationError as error:
        raise UsageError(f"the trial was stored by another version of a plug-in: {error}") from error
    if spec.canonical != canonical:
        raise UsageError("the trial was stored by another version of leakbench or of a plug-in")
    return spec


def _plugin(stored: Mapping[str, Any] | None, registry: Registry[Any]) -> Plugin | None:
    return None if stored is None else _required(stored, registry)


def _required(stored: Mapping[str, Any], registry: Registry[Any]) -> Plugin:
    card = registry.get(stored["name"])
    if card.version != stored["version"]:
        raise UsageError(
            f"expected {card.name!r} in version {stored['version']}, which ran, got version {card.version}"
        )
    return Plugin(card.name, card.version, card.config.model_validate_json(canonical_json(stored["config"])))
