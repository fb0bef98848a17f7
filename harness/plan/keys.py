"""Content addresses: what a trial or a stage is a function of, hashed.

Every key is the sha256 of canonical JSON (`fl.specs.canonical_json`) of exactly that, plug-in versions
included, and a version of the stage's own code, bumped when its results change.
"""

from __future__ import annotations

import json

from attacks.catalog import ENGINE_VERSION
from defenses import DEFENSES
from fl.specs import TrialSpec, canonical_json, digest

TRIAL_ID_LENGTH = 20
FEDERATION_VERSION = 1


def trial_id(spec: TrialSpec) -> str:
    """Return the id of a trial: its spec and the engine's version, hashed."""
    return trial_id_of(spec.canonical)


def trial_id_of(canonical: str) -> str:
    """Return the id of the trial whose spec has this canonical JSON."""
    return digest(f'{{"engine":{ENGINE_VERSION},"spec":{canonical}}}')[:TRIAL_ID_LENGTH]


def federation_key(spec: TrialSpec) -> str:
    """Return the key of the federation that a trial observes: not of its attack, attacker or targets.

    Raises:
        ValueError: For a recorded observation, which has none.
    """
    if spec.federation is None:
        raise ValueError("expected a trial with a federation, got a recorded observation")
    stages = DEFENSES.get(spec.defense.name).stages(spec.defense.config, spec)
    return _key(
        "federation",
        FEDERATION_VERSION,
        data=_json(spec.data),
        defense=_json(spec.defense),
        federation=_json(spec.federation),
        manipulation=_json(spec.threat_model.manipulation),
        model=_json(spec.model),
        seed=spec.seed,
        stages=[request.key for request in stages],
    )


def checkpoint_key(federation: str, round: int) -> str:
    """Return the key of a federation's state at the start of a round, given the federation's key."""
    return _key("checkpoint", FEDERATION_VERSION, federation=federation, round=round)


def _json(section: object) -> object:
    canonical = getattr(section, "canonical", None)
    return None if canonical is None else json.loads(canonical)


def _key(stage: str, version: int, **inputs: object) -> str:
    return digest(canonical_json({"stage": stage, "version": version, **inputs}))
