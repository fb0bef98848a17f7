"""The expansion against the plainest possible one: nested loops over values, then filters."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fl.errors import ConfigError
from harness.config.matrix import load_matrix
from harness.plan.keys import trial_id

DEFAULTS = {"data": "digits", "model": "lenet", "federation": {"rounds": 2}}
VALUES: Mapping[str, list[Any]] = {
    "attack": [
        "dlg",
        "idlg",
        "random_guess",
        {"name": "dlg", "iterations": 7},
        {"name": "idlg", "restarts": 2},
    ],
    "defense": ["none", "gaussian", {"name": "pruning", "ratio": 0.9}, {"name": "pruning", "ratio": 0.5}],
    "attacker": ["static", "adaptive"],
    "federation.batch_size": [1, 2, 4],
    "observe.round": [0, 1, 2],
    "threat_model.knowledge.labels": ["known", "unknown"],
}
Cell = dict[str, Any]

axes = st.dictionaries(st.sampled_from(sorted(VALUES)), st.just(None), min_size=1).flatmap(
    lambda names: st.fixed_dictionaries(
        {
            name: st.lists(st.sampled_from(VALUES[name]), min_size=1, unique_by=repr)
            for name in {"attack", *names}
        }
    )
)
patterns = st.dictionaries(
    st.sampled_from(
        ["attack", "attack.name", "defense", "attacker", "federation.batch_size", "observe.round"]
    ),
    st.just(None),
    min_size=1,
    max_size=2,
).flatmap(lambda keys: st.fixed_dictionaries({key: _pattern(key) for key in keys}))


def _pattern(key: str) -> st.SearchStrategy[Any]:
    if key.startswith("attack.") or key == "attack":
        return st.sampled_from(["dlg", "*dlg", "random_guess", "[id]*"])
    if key == "defense":
        return st.sampled_from(["none", "p*", {"name": "pruning", "ratio": 0.9}])
    return st.sampled_from(VALUES[key])


def name_of(value: Any) -> str:
    return value if isinstance(value, str) else value["name"]


def brute_matches(rule: Cell, cell: Cell) -> bool:
    unsaid = {"defense": "none", "attacker": "static", "federation.batch_size": 1, "observe.round": 0}
    for key, wanted in rule.items():
        have = {**unsaid, **cell}[key.removesuffix(".name")]
        if isinstance(wanted, dict):
            ok = isinstance(have, dict) and have == wanted
        elif isinstance(wanted, str):
            ok = fnmatchcase(name_of(have), wanted)
        else:
            ok = have == wanted
        if not ok:
            return False
    return True


def as_cell(spec: Any) -> Cell:
    """Return what a spec says about every key of `VALUES`, plug-ins with the options given there."""
    config = spec.attack.config.model_dump()
    options = {"dlg": {"iterations": 7}, "idlg": {"restarts": 2}}.get(spec.attack.name, {})
    attack: Any = spec.attack.name
    if options and all(config[key] == value for key, value in options.items()):
        attack = {"name": attack, **options}
    defense: Any = spec.defense.name
    if defense == "pruning":
        defense = {"name": defense, "ratio": spec.noise_budget}
    return {
        "attack": attack,
        "defense": defense,
        "attacker": spec.attacker,
        "federation.batch_size": spec.federation.batch_size,
        "observe.round": spec.observe.round,
        "threat_model.knowledge.labels": spec.threat_model.knowledge.labels,
        "seed": spec.seed,
    }


def load(document: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return load_matrix(path)


@settings(max_examples=60)
@given(
    axes=axes,
    rules=st.lists(patterns, max_size=3),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)
def test_expansion_is_the_brute_force_product_less_what_is_excluded(
    axes: dict[str, list[Any]], rules: list[Cell], seeds: list[int]
) -> None:
    unsaid = {"defense": "none", "attacker": "static", "federation.batch_size": 1, "observe.round": 0,
              "threat_model.knowledge.labels": "unknown"}  # fmt: skip
    cells = [dict(zip(axes, combo, strict=True)) for combo in itertools.product(*axes.values())]
    left = [cell for cell in cells if not any(brute_matches(rule, cell) for rule in rules)]
    dead = [i for i, rule in enumerate(rules) if not any(brute_matches(rule, cell) for cell in cells)]
    document = {"version": 1, "seeds": seeds, "defaults": DEFAULTS, "matrix": axes, "exclude": rules}
    if dead or not left:
        with pytest.raises(ConfigError) as caught:
            load(document)
        expected = [f"exclude.{index}" for index in dead] or ["matrix"]
        assert [problem.key for problem in caught.value.problems] == expected
        return
    found = [as_cell(spec) for spec in load(document).expand()]
    assert found == [{**unsaid, **cell, "seed": seed} for seed in seeds for cell in left]


@settings(max_examples=25)
@given(axes=axes, data=st.data())
def test_ids_do_not_depend_on_the_order_of_axes_values_keys_or_seeds(
    axes: dict[str, list[Any]], data: st.DataObject
) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            keys = data.draw(st.permutations(sorted(value)))
            return {key: shuffled(value[key]) for key in keys}
        return value

    moved = {name: data.draw(st.permutations([shuffled(v) for v in values])) for name, values in axes.items()}
    base = {"version": 1, "seeds": [0, 5], "defaults": DEFAULTS, "matrix": axes}
    other = shuffled({**base, "name": "other", "max_failures": 3, "matrix": moved}) | {"seeds": [5, 0]}
    ids = [[trial_id(spec) for spec in load(document).expand()] for document in (base, other)]
    assert len(set(ids[0])) == len(ids[0])
    assert sorted(ids[0]) == sorted(ids[1])


@settings(max_examples=25)
@given(axes=axes)
def test_an_included_cell_has_the_id_of_the_same_cell_of_a_product(axes: dict[str, list[Any]]) -> None:
    cells = [dict(zip(axes, combo, strict=True)) for combo in itertools.product(*axes.values())]
    assume(len(cells) <= 40)
    base = {"version": 1, "defaults": DEFAULTS}
    product = [trial_id(spec) for spec in load({**base, "matrix": axes}).expand()]
    assert [trial_id(spec) for spec in load({**base, "include": cells}).expand()] == product
