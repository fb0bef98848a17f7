"""The pages of the FedInverse studies: every number comes from a real run of the matrices, made small."""

from __future__ import annotations

import re
from itertools import product

import pytest

SMALLER = (
    (r"seeds: \[0, 1, 2, 3, 4\]", "seeds: [0, 1]"),
    (r"name: mnist5k, size: (16|32)", "name: digits, size: 16"),
    (r"sizes: \[[\d, ]+\]", "sizes: [25, 25, 25, 25, 25, 25]"),
    (r"rounds: (10|20)", "rounds: 2"),
    (r"round: (10|20)}", "round: 2}"),
    (r"round: \[1, 20\]", "round: [1, 2]"),
    (r"model: mcnn", "model: lenet"),
    (r"iterations: 1[05]0", "iterations: 2"),
    (r"steps: [34]00", "steps: 3"),
    (r"steps: 150", "steps: 2"),
    (r"width: (8|12|16)", "width: 2"),
)


def smaller(text):
    for pattern, less in SMALLER:
        text = re.sub(pattern, less, text)
    return text


def test_the_small_study_has_every_cell(plan):
    specs = plan("fedinverse_small")
    cells = [(s.attack.name, s.defense.name, s.observe.round, s.seed) for s in specs]
    attacks = ("random_prior", "gmi", "kedmi", "vmi", "plgmi")
    assert set(cells) == set(product(attacks, ("none", "bido", "mid_dependence"), (1, 20), range(5)))
    assert len(cells) == len(set(cells))
    assert {s.targets for s in specs} == {5}


def test_the_study_on_diversity_attacks_its_undefended_models(plan):
    small = {s.federation.canonical for s in plan("fedinverse_small")}
    diversity = plan("fedinverse_diversity")
    assert {s.federation.canonical for s in diversity} == small
    assert {s.attack.name for s in diversity} == {"random_prior", "gmi", "kedmi", "vmi"}
    weights = {s.attack.config.diversity.weight for s in diversity if s.attack.name == "gmi"}
    assert weights == {-20, -1, -0.05, 0, 0.05, 1, 20}
    assert {(s.defense.name, s.observe.round) for s in diversity} == {("none", 20)}


def test_the_larger_study_has_digits_of_32_pixels_undefended(plan):
    larger = plan("fedinverse_mnist5k")
    assert {s.data.config.size for s in larger} == {32}
    assert {(s.defense.name, s.observe.round) for s in larger} == {("none", 10)}
    assert {s.federation.attacker.others for s in larger} == {(0, 1, 2, 3, 4)}


def rows_of(page):
    return re.findall(r"^\|.*\|$", page, re.MULTILINE)


@pytest.mark.slow
def test_the_page_of_the_study_is_filled_from_runs(ran, script):
    study = script("fedinverse_small")
    small, larger = (study.Study(ran(name, smaller)) for name in ("fedinverse_small", "fedinverse_mnist5k"))
    page = study.page(small, larger)

    assert "{" not in page
    assert len(rows_of(page)) == 6 + 5 + 4 * 14 + 2 * 10 + 5  # heads included
    gmi = small.of_seeds("gmi", "none", 2)["attack_top1"]
    assert "| none | GMI | " in page
    assert study.shown(small.courses["none", "gmi"].rounds[-1].levels["attack_top1"].value, 2) in page
    assert small.courses["none", "gmi"].rounds[-1].levels["attack_top1"].value.mean == pytest.approx(
        gmi.mean()
    )


@pytest.mark.slow
def test_the_page_on_diversity_is_filled_from_a_run(ran, script):
    study = script("fedinverse_diversity")
    trials = study.read(ran("fedinverse_diversity", smaller))
    page = study.page(trials)

    assert "{" not in page
    assert len(rows_of(page)) == 2 + 7 + 6 + 5 + 2
    pairs = [study.cell(trials, "gmi", weight)["pairwise_distance"] for weight in (1.0, 0.0)]
    assert study.change(trials, "gmi", 1.0).mean == pytest.approx((pairs[0] - pairs[1]).mean())
