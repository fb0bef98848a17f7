"""The GGL study's page: the published table is copied rightly, and every table comes from a real run."""

from __future__ import annotations

import math
import re
from itertools import product

import pytest

SMALLER = {
    "metrics: [lpips_vgg]\n": "",
    "seeds: [0, 1, 2, 3, 4, 5]": "seeds: [0, 1]",
    "targets: 4": "targets: 1",
    "iterations: 50,": "iterations: 1,",
    "iterations: 500": "iterations: 3",
    "evaluations: 2000": "evaluations: 30",
    "restarts: 4": "restarts: 1",
    "steps: 2000": "steps: 3",
}


def smaller(text):
    for old, new in SMALLER.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def ggl_small(script):
    return script("ggl_small")


def test_the_published_numbers_belong_together(ggl_small):
    """The paper's PSNR is that of its mean error, in every cell."""
    for attack, defense in product(ggl_small.ATTACKS, ggl_small.DEFENSES):
        error, psnr = (ggl_small.published(attack, defense, name) for name in ("mse_i", "psnr_ref_db"))
        assert psnr == pytest.approx(-10 * math.log10(error), abs=0.01)
    # two cells by hand
    assert ggl_small.published("ggl", "soteria", "lpips_vgg") == 0.2561
    assert ggl_small.published("idlg", "pruning", "mse_r") == 0.0162


def test_the_matrix_has_every_cell_with_targets_enough(ggl_small, plan):
    specs = plan("ggl_small")
    cells = {}
    for spec in specs:
        if getattr(spec.attack.config, "optimizer", None) != "random":
            key = (spec.attack.name, spec.defense.name, spec.attacker)
            cells[key] = cells.get(key, 0) + spec.targets
    defended = set(product(ggl_small.ATTACKS, ggl_small.DEFENSES, ("static", "adaptive")))
    assert set(cells) == defended | {(attack, "none", "static") for attack in ggl_small.ATTACKS}
    assert set(cells.values()) == {24}
    assert {spec.seed for spec in specs} == set(range(6))


@pytest.mark.slow
def test_every_table_is_filled_from_a_run(ggl_small, ran):
    study = ggl_small.Study(ran("ggl_small", smaller))
    page = ggl_small.page(study)
    rows = re.findall(r"^\|.*\|$", page, re.MULTILINE)
    assert len(rows) == 7 + 8 + 22 + 18 + 18 + 22 + 22  # heads included
    for title in (*ggl_small.ATTACKS.values(), *ggl_small.DEFENSES.values()):
        assert title in page
    assert "2 handwritten digits" in page
    assert "{" not in page

    group = study.cell("ggl", "clipping", "adaptive")
    assert (len(group), group["seed"].nunique()) == (2, 2)
    shown = ggl_small.shown(ggl_small.mean(group, "mse_i"), "mse_i")
    assert shown.startswith(f"{group['mse_i'].mean():.3f} (")
    under_noise = ggl_small.shown(ggl_small.mean(study.in_paper("ggl", "gaussian"), "mse_i"), "mse_i")
    assert f"| GGL | MSE-I | {under_noise} | 0.078 |" in page
    same = ggl_small.difference(group, group, "mse_i")
    assert (same.mean, same.values) == (0, 2)
