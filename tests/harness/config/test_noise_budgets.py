from __future__ import annotations

from collections.abc import Callable

import pytest

from defenses import DEFENSES
from fl.cards import DefenseCard, NoiseBudget
from fl.registry import Registry
from fl.specs import Config
from harness.config.defense import resolve_defense
from harness.config.matrix import Matrix
from harness.config.problems import Problems
from harness.config.yaml_loader import Mark, node_of

Load = Callable[[str], Matrix]


def budgets(matrix: Matrix) -> list[tuple[str, float]]:
    return [(spec.defense.name, spec.noise_budget) for spec in matrix.expand()]


def sigmas(matrix: Matrix) -> list[float]:
    return [spec.defense.config.model_dump()["sigma"] for spec in matrix.expand()]


@pytest.mark.parametrize(
    "axes",
    [
        "defense: [{name: gaussian, noise_budget: [1.0e-3, 1e-2]}]",
        "defense: [gaussian], noise_budget: {gaussian: [1.0e-3, 1e-2]}",
        "defense: [{name: gaussian, sigma: {grid: [1.0e-3, 1e-2]}}]",
        "defense: [gaussian], defense.sigma: [1.0e-3, 1e-2]",
        "defense: [gaussian], defense.noise_budget: [1.0e-3, 1e-2]",
        "defense: [gaussian], noise_budget: {gaussian: {geomspace: {start: 1.0e-3, stop: 1e-2, num: 2}}}",
        "defense: [{name: gaussian, noise_budget: {grid: [1.0e-3, 1e-2]}}]",
    ],
)
def test_every_way_to_give_a_budget_fills_its_field(short: Load, axes: str) -> None:
    matrix = short(f"matrix: {{attack: [dlg], {axes}}}\n")
    assert budgets(matrix) == [("gaussian", 1e-3), ("gaussian", 1e-2)]
    assert sigmas(matrix) == [1e-3, 1e-2]


def test_without_one_the_configured_value_counts(short: Load) -> None:
    matrix = short("matrix: {attack: [dlg], defense: [none, gaussian, {name: pruning, ratio: 0.7}]}\n")
    default = DEFENSES.get("gaussian").config().model_dump()["sigma"]
    assert budgets(matrix) == [("none", 0.0), ("gaussian", default), ("pruning", 0.7)]


def test_auto_is_the_cards_grid(short: Load) -> None:
    matrix = short("matrix: {attack: [dlg], defense: [pruning], noise_budget: {pruning: auto}}\n")
    card = DEFENSES.get("pruning")
    assert budgets(matrix) == [("pruning", value) for value in card.noise_budget(card.config()).grid]


def test_the_items_own_budget_wins_over_the_axis(short: Load) -> None:
    matrix = short(
        "matrix:\n  attack: [dlg]\n"
        "  defense: [gaussian, {name: gaussian, scale: relative, noise_budget: 5}]\n"
        "  noise_budget: {gaussian: [0.5]}\n"
    )
    assert budgets(matrix) == [("gaussian", 0.5), ("gaussian", 5.0)]


def test_a_chain_has_the_budget_of_its_last_link(short: Load) -> None:
    matrix = short(
        "matrix:\n  attack: [dlg]\n"
        "  defense:\n"
        "    - {chain: [clipping, {name: gaussian, sigma: 1e-3}]}\n"
        "    - {chain: [{name: clipping, bound: 2}, gaussian], noise_budget: [0.1, 0.2]}\n"
        "    - {chain: [{name: clipping, noise_budget: [3, 4]}, {name: gaussian, noise_budget: 0.3}]}\n"
    )
    chains = [spec.defense.config.model_dump(mode="json")["links"] for spec in matrix.expand()]
    found = [(clip["config"]["bound"], noise["config"]["sigma"]) for clip, noise in chains]
    assert found == [(1.0, 0.001), (2.0, 0.1), (2.0, 0.2), (3.0, 0.3), (4.0, 0.3)]
    assert [budget for _, budget in budgets(matrix)] == [0.001, 0.1, 0.2, 0.3, 0.3]
    assert {link["version"] for chain in chains for link in chain} == {1}


def test_a_chain_may_be_written_by_name(short: Load) -> None:
    short_form = short("matrix: {attack: [dlg], defense: [{chain: [clipping, gaussian]}]}\n")
    long_form = short(
        "matrix: {attack: [dlg], defense: [{name: chain, links: [clipping, {name: gaussian}]}]}\n"
    )
    assert [s.canonical for s in short_form.expand()] == [s.canonical for s in long_form.expand()]


class NestedConfig(Config):
    """A budget that is an integer inside a section of its own."""

    class Inner(Config):
        """The section."""

        bits: int = 8

    inner: Inner = Inner()


def test_a_budget_may_lie_deeper_and_be_whole() -> None:
    budget = NoiseBudget("inner.bits", "bits", "update", stronger="lower", off=None, grid=(8.0, 4.0))
    card = DefenseCard(
        name="rounded",
        version=1,
        summary="",
        config=NestedConfig,
        implementation="none:none",
        noise_budget=lambda config: budget,
        hooks=frozenset(),
        mirrored=False,
    )
    registry = Registry("defense", group="leakbench.none", card_type=DefenseCard, builtin=lambda: [card])
    problems = Problems()
    node = node_of({"name": "rounded", "noise_budget": "auto"}, Mark("m.yaml", 1, ""))
    found = resolve_defense(registry, node, {}, problems)
    assert not len(problems)
    assert [(p.noise_budget, p.plugin.config.model_dump()["inner"]["bits"]) for p in found] == [
        (8.0, 8),
        (4.0, 4),
    ]
