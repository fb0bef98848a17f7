from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MATRIX = """\
version: 1
seeds: [0, 1]
defaults: {model: lenet}
matrix:
  data: [digits, {name: retina, size: 32}, photographs, faces, mnist5k]
  model: [lenet, {name: convnet, width: 16}, resnet20]
  attack: [dlg, idlg, inverting_gradients, random_guess, mean_image]
  attacker: [static, adaptive]
  defense: [none, {name: gaussian, noise_budget: auto}, pruning, {chain: [clipping, gaussian]}]
  federation: [{}, {algorithm: fedavg, rounds: 2, local_epochs: 2}]
"""
SCRIPT = """\
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "numpy", "ray", "torchvision", "pandas", "pyarrow"}:
            raise ImportError(f"{name} is not needed for planning")

sys.meta_path.insert(0, Refuse())

from harness.config.matrix import load_matrix
from harness.config.plugins import installed
from harness.config.smoke import smoke
from harness.plan.columns import flatten
from harness.plan.planner import make_plan

plugins = installed()
cards = [c for r in (plugins.datasets, plugins.models, plugins.defenses, plugins.attacks) for c in r]
cards += list(plugins.manipulations)
matrix = load_matrix(sys.argv[1])
for each in (matrix, smoke(matrix)):
    plan = make_plan(each, {}, only=["attack=*"])
    assert plan.stages and plan.estimate.trial_seconds and plan.axis_columns
    assert all(flatten(trial.spec) and trial.name for trial in plan.trials)
print(len(cards), len(make_plan(matrix, {}).trials))
"""


def test_every_card_is_read_and_a_matrix_planned_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(MATRIX)
    run = [sys.executable, "-W", "error", "-c", SCRIPT, str(path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cards, trials = map(int, done.stdout.split())
    assert cards >= 15
    assert trials == 2 * 5 * 3 * 5 * 2 * (1 + 4 + 1 + 1) * 2
