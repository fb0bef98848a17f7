"""From the canonical spec that a row holds back to the trial."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fl.errors import ConfigError, UsageError
from fl.registry import Registry
from fl.specs import JSON, FederationSpec, ObserveSpec, Plugin, ThreatModel, TrialSpec, canonical_json
from harness.config.matrix import load_matrix
from harness.config.plugins import installed


def read_spec(canonical: str, *, known: Iterable[Plugin] = ()) -> TrialSpec:
    """Return the trial whose canonical spec this is.

    Args:
        canonical: `TrialSpec.canonical`, as in the column `spec`.
        known: Plug-ins of which a spec holds too little: digests of files in place of their paths.

    Raises:
        UsageError: If a plug-in is not installed in the version that ran, the files of a data set are not
            known, or the trial was one on a recorded observation, of which only the digest is stored.
    """
    plugins, stored = installed(), json.loads(canonical)
    if stored["recorded"] is not None:
        raise UsageError("expected a trial with a federation, got one on a recorded observation")
    named = {plugin.canonical: plugin for plugin in known}
    try:
        spec = TrialSpec(
            data=_plugin(stored["data"], plugins.datasets, named),
            model=_plugin(stored["model"], plugins.models, named),
            federation=FederationSpec.model_validate_json(canonical_json(stored["federation"])),
            defense=_required(stored["defense"], plugins.defenses, named),
            noise_budget=stored["noise_budget"],
            threat_model=ThreatModel.model_validate_json(canonical_json(stored["threat_model"])),
            attacker=stored["attacker"],
            attack=_required(stored["attack"], plugins.attacks, named),
            observe=ObserveSpec.model_validate_json(canonical_json(stored["observe"])),
            targets=stored["targets"],
            seed=stored["seed"],
            public=_plugin(stored["public"], plugins.datasets, named),
        )
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(
            "the trial was stored by another version of a plug-in, or the files of its data set are not "
            f"where the experiment's matrix says ({problems})"
        ) from error
    if spec.canonical != canonical:
        raise UsageError("the trial was stored by another version of leakbench or of a plug-in")
    return spec


def plugins_with_files(document: Mapping[str, JSON]) -> list[Plugin]:
    """Return the data sets, attacks and defenses that a matrix names, with the paths that specs leave out.

    Args:
        document: The matrix as a manifest keeps it; none are returned if it cannot be read (any more).
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "matrix.yaml")
        path.write_text(json.dumps(document))  # JSON is YAML
        try:
            pools = load_matrix(path).pools
        except ConfigError:
            return []
    named = [pool[i] for pool in (pools.data, pools.public, pools.attack) for i in range(len(pool))]
    defenses = [pools.defense[i].plugin for i in range(len(pools.defense))]
    return [plugin for plugin in [*named, *defenses] if plugin is not None]


def _plugin(
    stored: Mapping[str, Any] | None, registry: Registry[Any], named: Mapping[str, Plugin]
) -> Plugin | None:
    return None if stored is None else _required(stored, registry, named)


def _required(stored: Mapping[str, Any], registry: Registry[Any], named: Mapping[str, Plugin]) -> Plugin:
    card = registry.get(stored["name"])
    if card.version != stored["version"]:
        raise UsageError(
            f"expected {card.name!r} in version {stored['version']}, which ran, got version {card.version}"
        )
    if (plugin := named.get(canonical_json(stored))) is not None:
        return plugin
    return Plugin(card.name, card.version, card.config.model_validate_json(canonical_json(stored["config"])))
