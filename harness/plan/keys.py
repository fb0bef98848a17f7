"""Content addresses: what a trial or a stage is a function of, hashed.

Every key is the sha256 of canonical JSON (`fl.specs.canonical_json`) of exactly that, plug-in versions
included, and a version of the stage's own code, bumped when its results change.
"""

from __future__ import annotations

import json

from attacks.catalog import ENGINE_VERSION
from defenses import DEFENSES
from defenses.catalog import hooks_of
from fl.specs import FederationSpec, TrialSpec, canonical_json, digest

TRIAL_ID_LENGTH = 20
FEDERATION_VERSION = 1
CLEAN_UPDATE_VERSION = 1
OBSERVATION_VERSION = 1
NOT_IN_FIRST_ROUND = ("rounds", "participation", "server_lr", "chunk")
"""Fields of a federation that a client's own update in round 0 does not depend on."""


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


def clean_update_key(spec: TrialSpec, target: str) -> str | None:
    """Return the key of a target's update before the defense acts; None where it is no stage of its own.

    In round 0 nothing has been trained under the defense yet, and a defense that acts only through `protect`
    changes the finished update: the clean one is shared by all such defenses and budgets.
    """
    at_start = spec.observe.kind == "update" and spec.observe.round == 0
    if spec.federation is None or not at_start or not hooks_of(spec.defense) <= {"protect"}:
        return None
    return _key(
        "clean_update",
        CLEAN_UPDATE_VERSION,
        data=_json(spec.data),
        federation=_first_round(spec.federation),
        manipulation=_json(spec.threat_model.manipulation),
        model=_json(spec.model),
        seed=spec.seed,
        target=target,
    )


def observation_key(spec: TrialSpec, target: str) -> str:
    """Return the key of what the adversary sees of one target.

    Raises:
        ValueError: For a recorded observation, which is an artifact already.
    """
    return _key(
        "observation",
        OBSERVATION_VERSION,
        federation=federation_key(spec),
        observe=_json(spec.observe),
        target=target,
        threat_model=_json(spec.threat_model),
    )


def _first_round(federation: FederationSpec) -> object:
    fields = json.loads(federation.canonical)
    return {name: value for name, value in fields.items() if name not in NOT_IN_FIRST_ROUND}


def _json(section: object) -> object:
    canonical = getattr(section, "canonical", None)
    return None if canonical is None else json.loads(canonical)


def _key(stage: str, version: int, **inputs: object) -> str:
    return digest(canonical_json({"stage": stage, "version": version, **inputs}))
