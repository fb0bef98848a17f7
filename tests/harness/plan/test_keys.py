from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import Field

from defenses import DEFENSES
from defenses.catalog import GaussianConfig, PruningConfig
from fl.cards import DefenseCard, NoiseBudget, StageRequest
from fl.specs import (
    Config,
    Dirichlet,
    FederationSpec,
    KnowledgeSpec,
    NamedConfig,
    NoConfig,
    ObserveSpec,
    Plugin,
    Recorded,
    ThreatModel,
    TrialSpec,
    added_later,
)
from harness.plan.keys import (
    checkpoint_key,
    federation_key,
    trial_id,
)


class SteadyConfig(Config):
    """A configuration that no plug-in of the project changes."""

    size: int = 16
    weight: float = 1e-4
    labels: tuple[int, ...] | None = None


class GrownConfig(SteadyConfig):
    """The same, some releases later."""

    warm_start: bool = added_later(False)


def trial(**changes: Any) -> TrialSpec:
    base = TrialSpec(
        data=Plugin("digits", 1, SteadyConfig()),
        model=Plugin("lenet", 1, NoConfig()),
        federation=FederationSpec(),
        defense=Plugin("none", 1, NoConfig()),
        noise_budget=0.0,
        threat_model=ThreatModel(),
        attacker="static",
        attack=Plugin("dlg", 1, SteadyConfig(labels=(3, 1))),
        observe=ObserveSpec(),
        targets=4,
        seed=0,
    )
    return replace(base, **changes)


GAUSSIAN = Plugin("gaussian", 1, GaussianConfig(sigma=1e-3))
SPEC = trial(
    federation=FederationSpec(clients=10, partition=Dirichlet(alpha=0.5)),
    defense=GAUSSIAN,
    noise_budget=1e-3,
    public=Plugin("mnist5k", 2, SteadyConfig(size=28)),
)
CHANGES: dict[str, dict[str, Any]] = {
    "data": {"data": Plugin("digits", 1, SteadyConfig(size=8))},
    "data version": {"data": Plugin("digits", 2, SteadyConfig())},
    "model": {"model": Plugin("convnet", 1, NoConfig())},
    "federation": {"federation": FederationSpec(clients=11, partition=Dirichlet(alpha=0.5))},
    "defense": {"defense": Plugin("pruning", 1, PruningConfig())},
    "budget": {"defense": Plugin("gaussian", 1, GaussianConfig(sigma=2e-3)), "noise_budget": 2e-3},
    "seed": {"seed": 1},
    "manipulation": {
        "threat_model": ThreatModel(behaviour="malicious", manipulation=NamedConfig(name="trap"))
    },
    "manipulation version": {
        "threat_model": ThreatModel(behaviour="malicious", manipulation=NamedConfig(name="trap", version=2))
    },
    "knowledge": {"threat_model": ThreatModel(knowledge=KnowledgeSpec(labels="known"))},
    "attacker": {"attacker": "adaptive"},
    "attack": {"attack": Plugin("idlg", 1, SteadyConfig())},
    "attack version": {"attack": Plugin("dlg", 2, SteadyConfig(labels=(3, 1)))},
    "observe": {"observe": ObserveSpec(round=1)},
    "targets": {"targets": 5},
    "public": {"public": None},
}
OF_THE_FEDERATION = {
    "data", "data version", "model", "federation", "defense", "budget", "seed", "manipulation",
    "manipulation version",
}  # fmt: skip


def test_a_trial_id_is_the_hash_of_engine_and_canonical_spec() -> None:
    document = {"engine": 6, "spec": json.loads(SPEC.canonical)}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert trial_id(SPEC) == hashlib.sha256(text.encode()).hexdigest()[:20]


def test_ids_stay_what_they_were() -> None:
    """A change here orphans every stored result: it needs an engine version, not a new number."""
    assert trial_id(SPEC) == "c930d6810083362f920f"  # of engine version 6
    assert federation_key(SPEC)[:20] == "d928d1472107a012c11e"


@pytest.mark.parametrize("change", CHANGES)
def test_a_federations_key_is_the_hash_of_what_trains_it(change: str) -> None:
    spec = replace(SPEC, **CHANGES[change])
    whole = json.loads(spec.canonical)
    document = {name: whole[name] for name in ("data", "defense", "federation", "model", "seed")}
    document |= {"manipulation": whole["threat_model"]["manipulation"], "stage": "federation"}
    text = json.dumps({**document, "stages": [], "version": 1}, sort_keys=True, separators=(",", ":"))
    assert federation_key(spec) == hashlib.sha256(text.encode()).hexdigest()


def test_a_field_added_later_leaves_ids_alone_at_its_default() -> None:
    grown = trial(data=Plugin("digits", 1, GrownConfig()))
    assert trial_id(grown) == trial_id(trial())
    assert trial_id(trial(data=Plugin("digits", 1, GrownConfig(warm_start=True)))) != trial_id(trial())


def test_a_field_added_later_inside_a_section_leaves_ids_alone_too() -> None:
    class Outer(Config):
        inner: SteadyConfig = Field(default_factory=SteadyConfig)
        several: tuple[SteadyConfig, ...] = (SteadyConfig(),)

    class LaterOuter(Config):
        inner: GrownConfig = Field(default_factory=GrownConfig)
        several: tuple[GrownConfig, ...] = (GrownConfig(),)

    assert Outer().canonical == LaterOuter().canonical
    assert LaterOuter(several=(GrownConfig(warm_start=True),)).canonical != Outer().canonical


@pytest.mark.parametrize("change", CHANGES)
def test_every_part_of_a_spec_is_in_the_trial_id(change: str) -> None:
    assert trial_id(replace(SPEC, **CHANGES[change])) != trial_id(SPEC)


@pytest.mark.parametrize("change", CHANGES)
def test_a_federation_depends_on_what_trains_it_and_nothing_else(change: str) -> None:
    changed = federation_key(replace(SPEC, **CHANGES[change])) != federation_key(SPEC)
    assert changed == (change in OF_THE_FEDERATION)


def test_rounds_have_keys_of_their_own() -> None:
    key = federation_key(SPEC)
    keys = {
        key,
        *(checkpoint_key(key, number) for number in range(3)),
    }
    assert len(keys) == 4


def test_a_recorded_observation_has_no_federation() -> None:
    recorded = replace(SPEC, data=None, model=None, federation=None, recorded=Recorded(file="a", sha256="b"))
    with pytest.raises(ValueError, match="recorded observation"):
        federation_key(recorded)
    elsewhere = replace(recorded, recorded=Recorded(file="other", sha256="b"))
    assert trial_id(elsewhere) == trial_id(recorded)


def trained_defense(version: int) -> DefenseCard[Any]:
    budget = NoiseBudget("", "", "none", stronger="higher", off=None, grid=())

    def stages(config: NoConfig, spec: TrialSpec) -> list[StageRequest]:
        return [StageRequest("shadow", "shadow generator", "m:f", version, {"seed": spec.seed})]

    return DefenseCard(
        name="trained",
        version=1,
        summary="",
        config=NoConfig,
        implementation="m:d",
        noise_budget=lambda config: budget,
        hooks=frozenset({"protect"}),
        mirrored=False,
        stages=stages,
    )


def test_a_defenses_stages_are_in_the_federations_key() -> None:
    spec = replace(SPEC, defense=Plugin("trained", 1, NoConfig()))
    keys = []
    for version in (1, 2):
        DEFENSES.register(trained_defense(version))
        keys.append(federation_key(spec))
        DEFENSES.unregister("trained")
    assert keys[0] != keys[1]
