"""An attack that somebody else ships: found through its entry point, run, and proved with the public kit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "leakbench-outsider"
version = "0.1"

[project.entry-points."leakbench.attacks"]
outsider = "outsider.card:CARD"

[tool.setuptools]
packages = ["outsider"]
"""
CARD = """
from fl.cards import AttackCard
from fl.specs import Config


class OutsiderConfig(Config):
    brightness: float = 0.25


CARD = AttackCard(
    name="outsider",
    version=3,
    summary="Blurred noise around a brightness.",
    config=OutsiderConfig,
    implementation="outsider.attack:Outsider",
    family="floor",
    observes=frozenset({"update", "aggregate"}),
    evaluations=lambda config: 0,
)
"""
ATTACK = """
import torch
from torch.nn.functional import avg_pool2d

from attacks.base import Attack, Reconstruction


class Outsider(Attack):
    def solve(self, tasks, env):
        for task in tasks:
            shape = (task.observation.update.n_images, *task.observation.image.shape)
            noise = torch.rand(shape, generator=task.streams.torch("first_guess", restart=0))
            blurred = avg_pool2d(noise, 3, stride=1, padding=1) * 2 * task.config.brightness
            yield Reconstruction(task.task_id, blurred.clamp(0, 1), None, {}, 0, 1)
"""
KIT = """
from harness.testing import AttackConformance
from outsider.card import CARD


class TestOutsider(AttackConformance):
    card = CARD
"""
MATRIX = """
version: 1
name: foreign
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 0, batch_size: 1}
  targets: 2
matrix:
  attack: [{name: outsider, brightness: 0.5}, outsider]
"""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A folder with the installed package, and how to run Python where it is found."""
    root = tmp_path_factory.mktemp("foreign")
    source, site = root / "source", root / "site"
    (source / "outsider").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT)
    for name, text in {"__init__": "", "card": CARD, "attack": ATTACK}.items():
        (source / "outsider" / f"{name}.py").write_text(text)
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    pip = [sys.executable, "-m", "pip", "install", *offline, "--target", str(site), str(source)]
    subprocess.run(pip, check=True, capture_output=True, text=True)
    (root / "test_outsider.py").write_text(KIT)
    (root / "foreign.yaml").write_text(MATRIX)

    def python(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.getcwd()])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return root, python


def bench(*arguments):
    return ("-c", "from harness.cli.main import main; main()", *arguments)


def test_it_is_listed_with_where_it_comes_from(foreign):
    _, python = foreign
    found = json.loads(python(*bench("ls", "attacks", "--json")))
    (card,) = [row for row in found if row["name"] == "outsider"]

    assert card["package"] == "outsider"
    assert card["version"] == 3
    assert "outsider" in python(*bench("ls", "attacks"))


@pytest.mark.slow
def test_a_matrix_with_it_runs(foreign):
    root, python = foreign
    python(*bench("run", "foreign.yaml", "--executor", "inline", "--progress", "none", "--results", "out"))
    rows = pd.read_parquet(root / "out" / "foreign" / "trials").set_index("attack_brightness")

    assert rows["status"].tolist() == ["complete", "complete"]
    assert set(rows["attack_version"]) == {3}
    assert rows.loc[0.25, "psnr_db"] != rows.loc[0.5, "psnr_db"]


@pytest.mark.slow
def test_its_conformance_tests_pass(foreign):
    _, python = foreign
    report = python("-m", "pytest", "-p", "no:cacheprovider", "-W", "error", "-q", "test_outsider.py")

    assert "passed" in report
    assert "skipped" not in report
