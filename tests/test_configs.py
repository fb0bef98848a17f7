"""The matrices in `configs/` are valid and ask for what they say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from attacks import ATTACKS
from defenses import DEFENSES
from harness.config.matrix import load_matrix
from harness.plan.planner import make_plan

CONFIGS = Path(__file__).parents[1] / "configs"


SEEDS = CONFIGS / "seeds"
NEEDS_FILES = {
    SEEDS / f"{name}.yaml"
    for name in (
        "xray",
        "shadowdef",
        "ggl_celeba",
        "ggl_imagenet",
        "fedinverse_mnist",
        "fedinverse_celeba",
    )
}
"""Matrices on data, and generators, that every user gets for themselves."""


@pytest.mark.parametrize(
    "path",
    sorted({*CONFIGS.glob("*.yaml"), *SEEDS.glob("*.yaml")} - NEEDS_FILES),
    ids=lambda path: path.stem,
)
def test_every_trial_of_a_shipped_matrix_applies(path):
    plan = make_plan(load_matrix(path), {})
    assert plan.reasons() == {}
    assert len(plan.todo) == len(plan.trials) > 0


def test_quickstart_compares_two_attacks_with_floors_on_two_pairs():
    specs = [trial.spec for trial in make_plan(load_matrix(CONFIGS / "quickstart.yaml"), {}).trials]
    pairs = Counter((spec.data.name, spec.model.config.convs, spec.attack.name) for spec in specs)
    # 5 noise budgets x 3 seeds each
    floors = {(data, convs, floor): 15 for data, convs in (("digits", 3), ("photographs", 4))
              for floor in ("random_guess", "mean_image")}  # fmt: skip
    attacks = {
        ("digits", 3, "dlg"): 15,
        ("digits", 3, "inverting_gradients"): 15,
        ("photographs", 4, "inverting_gradients"): 15,
    }
    assert pairs == Counter({**floors, **attacks})
    budgets = {(spec.defense.name, spec.noise_budget) for spec in specs}
    assert budgets == {
        ("none", 0.0),
        ("gaussian", 1e-3),
        ("gaussian", 1e-2),
        ("pruning", 0.2),
        ("pruning", 0.9),
    }
    assert {spec.seed for spec in specs} == {0, 1, 2}
    assert {spec.targets for spec in specs} == {4}


def test_smoke_passes_through_every_attack_and_defense():
    specs = [trial.spec for trial in make_plan(load_matrix(CONFIGS / "smoke.yaml"), {}).trials]
    assert {card.name for card in ATTACKS if card.origin == "attacks"} <= {spec.attack.name for spec in specs}
    assert {card.name for card in DEFENSES if card.origin == "defenses"} <= {s.defense.name for s in specs}
    assert {spec.federation.algorithm for spec in specs} == {"fedsgd", "fedavg"}
    assert {spec.observe.kind for spec in specs} == {"update", "aggregate", "global_model"}
