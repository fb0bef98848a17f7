"""Content addresses: what a trial or a stage is a function of, hashed.

Every key is the sha256 of canonical JSON (`fl.specs.canonical_json`) of exactly that, plug-in versions
included, and a version of the stage's own code, bumped when its results change.
"""

from __future__ import annotations

from attacks.catalog import ENGINE_VERSION
from defenses import DEFENSES
from fl.specs import Config, Plugin, TrialSpec, canonical_json, digest

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
    parts = {  # names must stay sorted: canonical JSON, joined from cached fragments
        "data": _canonical(spec.data),
        "defense": _canonical(spec.defense),
        "federation": _canonical(spec.federation),
        "manipulation": _canonical(spec.threat_model.manipulation),
        "model": _canonical(spec.model),
        "seed": str(spec.seed),
        "stage": '"federation"',
        "stages": canonical_json([request.key for request in stages]),
        "version": str(FEDERATION_VERSION),
    }
    return digest("{" + ",".join(f'"{name}":{part}' for name, part in parts.items()) + "}")


def checkpoint_key(federation: str, round: int) -> str:
    """Return the key of a federation's state at the start of a round, given the federation's key."""
    inputs = {"federation": federation, "round": round}
    return digest(canonical_json({"stage": "checkpoint", "version": FEDERATION_VERSION, **inputs}))


def _canonical(section: Plugin | Config | None) -> str:
    return "null" if section is None else section.canonical
