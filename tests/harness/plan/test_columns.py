from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
from pydantic import Field

from attacks import ATTACKS
from attacks.catalog import DlgConfig
from fl.cards import AttackCard
from fl.specs import Config, NamedConfig, ThreatModel, added_later
from harness.config.matrix import Matrix
from harness.plan.columns import as_columns, columns_of, declarations, flatten, flatten_stored

Load = Callable[[str], Matrix]
TEXT = """\
seeds: [5]
matrix:
  attack: [dlg, {name: inverting_gradients, iterations: 100}, random_guess]
  defense: [none, {name: pruning, ratio: 1}, {chain: [clipping, {name: gaussian, sigma: 0.5}]}]
  federation: [{partition: {name: dirichlet, alpha: 2}, rounds: 3, batch_size: 8}, {clients: 7}]
  public: [null, mnist5k]
  observe.round: [1]
"""


def test_every_field_of_every_section_is_a_column(short: Load) -> None:
    spec = next(short(TEXT).expand())
    columns = flatten(replace(spec, public=spec.data))
    expected = {
        "dataset": "digits", "model": "lenet", "defense": "none", "attack": "dlg", "attacker": "static",
        "noise_budget": 0.0, "seed": 5, "round": 1, "targets": 4, "public": "digits", "recorded": None,
        "data_version": 1, "data_size": 16, "public_size": 16, "model_convs": 4,
        "attack_iterations": spec.attack.config.model_dump()["iterations"],
        "federation_partition_name": "dirichlet", "federation_partition_alpha": 2.0,
        "federation_batch_size": 8, "federation_local_steps": None,
        "observe_kind": "update", "threat_model_position": "server",
        "threat_model_knowledge_labels": "unknown", "threat_model_knowledge_public_data": True,
    }  # fmt: skip
    assert {name: columns[name] for name in expected} == expected
    assert isinstance(columns["federation_partition_alpha"], float)
    assert "observe_round" not in columns


def test_what_is_no_scalar_is_canonical_json(short: Load) -> None:
    chain = next(spec for spec in short(TEXT).expand() if spec.defense.name == "chain")
    links = flatten(chain)["defense_links"]
    assert isinstance(links, str)
    assert [(link["name"], link["version"]) for link in json.loads(links)] == [
        ("clipping", 1),
        ("gaussian", 1),
    ]
    assert links == json.dumps(json.loads(links), sort_keys=True, separators=(",", ":"))


def test_a_manipulation_is_flattened_like_any_section(short: Load) -> None:
    named = NamedConfig(name="trap", version=3, config={"neurons": 5})
    malicious = ThreatModel(behaviour="malicious", manipulation=named)
    columns = flatten(replace(next(short(TEXT).expand()), threat_model=malicious))
    found = {name: value for name, value in columns.items() if "manipulation" in name}
    assert found == {
        "threat_model_manipulation_name": "trap",
        "threat_model_manipulation_version": 3,
        "threat_model_manipulation_config": '{"neurons":5}',
    }


def test_columns_are_declared_for_everything_that_is_flattened(short: Load) -> None:
    matrix = short(TEXT)
    declared = columns_of(matrix)
    types = {"int": int, "float": float, "bool": bool, "str": str}
    for spec in matrix.expand():
        for name, value in flatten(spec).items():
            assert name in declared
            assert value is None or type(value) is types[declared[name]], name
    assert declared["attack_cost"] == "str"  # of inverting_gradients, though most trials do not have it
    assert declared["federation_local_steps"] == "int"  # though every value is null
    assert "defense_bound" not in declared  # clipping is only a link here


class Mixed(Config):
    """Annotations of every kind."""

    whole: int | None = None
    either: int | float = 1
    flag: bool = True
    size: Literal[8, 16] = 8
    word: Literal["a", "b"] = "a"
    auto: float | Literal["auto"] = "auto"
    several: tuple[int, ...] = (1,)
    options: dict[str, int] = Field(default_factory=dict)


def test_types_come_from_annotations() -> None:
    assert dict(declarations(Mixed, "x")) == {
        "x_whole": "int", "x_either": "float", "x_flag": "bool", "x_size": "int", "x_word": "str",
        "x_auto": "str", "x_several": "str", "x_options": "str",
    }  # fmt: skip


class Whole(Config):
    """An attack's options."""

    strength: int = 3
    schedule: int = 1


class Fraction(Config):
    """Another attack's options, of the same names."""

    strength: float = 0.5
    schedule: str = "cosine"


def attack_card(name: str, config: type[Config], version: int = 1) -> AttackCard[Any]:
    return AttackCard(
        name=name,
        version=version,
        summary="",
        config=config,
        implementation="m:a",
        family="gradient_inversion",
        observes=frozenset({"update"}),
        evaluations=lambda config: 1,
    )


@pytest.mark.parametrize("order", ["whole, fraction", "fraction, whole"])
def test_plug_ins_that_disagree_get_a_common_type(
    short: Load, register: Callable[[Any], None], order: str
) -> None:
    register(attack_card("whole", Whole))
    register(attack_card("fraction", Fraction))
    matrix = short(f"matrix: {{attack: [{order}]}}\n")
    declared = columns_of(matrix)
    assert (declared["attack_strength"], declared["attack_schedule"]) == ("float", "str")
    rows = {spec.attack.name: as_columns(flatten(spec), declared) for spec in matrix.expand()}
    assert (rows["whole"]["attack_strength"], rows["whole"]["attack_schedule"]) == (3.0, "1")
    assert isinstance(rows["whole"]["attack_strength"], float)
    assert (rows["fraction"]["attack_strength"], rows["fraction"]["attack_schedule"]) == (0.5, "cosine")
    assert set(rows["whole"]) == set(declared)


def test_stored_specs_give_the_same_columns(short: Load) -> None:
    for spec in short(TEXT).expand():
        assert flatten_stored(spec.canonical) == flatten(spec)


class Grown(Whole):
    """The attack's options after some releases."""

    warm_start: bool = added_later(False)


def test_a_stored_spec_has_the_default_of_a_field_that_joined_later(
    short: Load, register: Callable[[Any], None]
) -> None:
    ATTACKS.register(attack_card("whole", Whole))
    (old,) = [spec.canonical for spec in short("matrix: {attack: [whole]}\n").expand()]
    ATTACKS.unregister("whole")
    register(attack_card("whole", Grown))
    assert flatten_stored(old)["attack_warm_start"] is False


@pytest.mark.parametrize("installed", [None, attack_card("whole", DlgConfig), attack_card("whole", Whole, 2)])
def test_a_stored_spec_of_a_plug_in_that_is_gone_or_changed_keeps_its_fields(
    short: Load, register: Callable[[Any], None], installed: AttackCard[Any] | None
) -> None:
    ATTACKS.register(attack_card("whole", Whole))
    (old,) = [spec.canonical for spec in short("matrix: {attack: [{name: whole, strength: 9}]}\n").expand()]
    ATTACKS.unregister("whole")
    if installed is not None:
        register(installed)
    columns = flatten_stored(old)
    found = {name: value for name, value in columns.items() if name.startswith("attack_")}
    assert found == {"attack_version": 1, "attack_strength": 9, "attack_schedule": 1}
