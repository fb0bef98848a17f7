"""The GGL study's page: the published table is copied rightly, and every table comes from a real run."""

from __future__ import annotations

import importlib.util
import math
import re
from itertools import product
from pathlib import Path

import pytest

from harness.config.matrix import load_matrix
from harness.execute.session import RunRequest, inline, run_matrix
from harness.plan.planner import make_plan

ROOT = Path(__file__).parents[1]
MATRIX = ROOT / "configs" / "seeds" / "ggl_small.yaml"
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


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("ggl_small", ROOT / "docs" / "studies" / "ggl_small.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_published_numbers_belong_together(script):
    """The paper's PSNR is that of its mean error, in every cell."""
    for attack, defense in product(script.ATTACKS, script.DEFENSES):
        error, psnr = (script.published(attack, defense, name) for name in ("mse_i", "psnr_ref_db"))
        assert psnr == pytest.approx(-10 * math.log10(error), abs=0.01)
    # two cells by hand
    assert script.published("ggl", "soteria", "lpips_vgg") == 0.2561
    assert script.published("idlg", "pruning", "mse_r") == 0.0162


def test_the_matrix_has_every_cell_with_targets_enough(script):
    specs = [trial.spec for trial in make_plan(load_matrix(MATRIX), {}).trials]
    cells = {}
    for spec in specs:
        if getattr(spec.attack.config, "optimizer", None) != "random":
            key = (spec.attack.name, spec.defense.name, spec.attacker)
            cells[key] = cells.get(key, 0) + spec.targets
    defended = set(product(script.ATTACKS, script.DEFENSES, ("static", "adaptive")))
    assert set(cells) == defended | {(attack, "none", "static") for attack in script.ATTACKS}
    assert set(cells.values()) == {24}
    assert {spec.seed for spec in specs} == set(range(6))


@pytest.fixture(scope="module")
def study(script, tmp_path_factory):
    """The study on two images."""
    text = MATRIX.read_text()
    for old, new in SMALLER.items():
        assert old in text
        text = text.replace(old, new)
    folder = tmp_path_factory.mktemp("study")
    (folder / "ggl_small.yaml").write_text(text)
    request = RunRequest(load_matrix(folder / "ggl_small.yaml"), folder / "results", inline)
    assert run_matrix(request, Silent()).exit_code == 0
    return script.Study(folder / "results" / "ggl_small")


class Silent:
    """Hears nothing of a run (`harness.execute.events.RunListener`)."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


@pytest.mark.slow
def test_every_table_is_filled_from_a_run(script, study):
    page = script.page(study)
    rows = re.findall(r"^\|.*\|$", page, re.MULTILINE)
    assert len(rows) == 7 + 8 + 22 + 18 + 18 + 22 + 22  # heads included
    for title in (*script.ATTACKS.values(), *script.DEFENSES.values()):
        assert title in page
    assert "2 handwritten digits" in page
    assert "{" not in page

    group = study.cell("ggl", "clipping", "adaptive")
    assert (len(group), group["seed"].nunique()) == (2, 2)
    shown = script.shown(script.mean(group, "mse_i"), "mse_i")
    assert shown.startswith(f"{group['mse_i'].mean():.3f} (")
    under_noise = script.shown(script.mean(study.in_paper("ggl", "gaussian"), "mse_i"), "mse_i")
    assert f"| GGL | MSE-I | {under_noise} | 0.078 |" in page
    same = script.difference(group, group, "mse_i")
    assert (same.mean, same.values) == (0, 2)
