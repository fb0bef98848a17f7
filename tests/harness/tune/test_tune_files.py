"""Tune files: every mistake at once with its line, and what a right one means."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fl.errors import ConfigError
from harness.tune.document import load_tuning
from harness.tune.settings import Gp, NsgaII, Random, Tpe
from harness.tune.space import Choice, Range

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs" / "tune").glob("*.yaml"))
GOOD = """
attacks: [{name: idlg, iterations: 1}]
judge: {attacks: [{name: inverting_gradients, iterations: 1}]}
space:
  gaussian: {noise_budget: {float: [1e-4, 1], log: true}}
objectives: {accuracy: maximize, leakage: minimize}
"""


def mistakes(path):
    with pytest.raises(ConfigError) as error:
        load_tuning(path)
    assert error.value.exit_code == 2
    return [str(problem).replace(f"{path}:", "line ") for problem in error.value.problems]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_files_are_valid(path):
    tuning = load_tuning(path)
    assert tuning.name == path.stem
    assert set(tuning.study.objectives) == {"accuracy", "leakage"}
    assert tuning.judge is not None
    for branch in tuning.space.branches.values():
        for corner in branch.corners():
            assert tuning.plan(corner, tuning.tuning, {}).todo
            assert tuning.plan(corner, tuning.judge, {}).todo


def test_the_file_in_the_docs_is_valid(tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "tuning.md").read_text(), re.DOTALL)
    path = tmp_path / "study.yaml"
    path.write_text(re.sub(r"extends:.*\n", "", text))
    assert set(load_tuning(path).space.branches) == {"gaussian", "shadowdef", "clipped_noise"}


def test_every_defense_has_a_file():
    from defenses import DEFENSES

    searched = {
        branch.node.entries["name"].value
        for path in CONFIGS
        for branch in load_tuning(path).space.branches.values()
    }
    assert searched == set(DEFENSES.names()) - {"none"}


def test_checking_a_file_loads_neither_torch_nor_optuna():
    code = """
    import sys
    from harness.tune.document import load_tuning
    tuning = load_tuning("configs/tune/shadowdef_small.yaml")
    branch = tuning.space.branches["shadowdef"]
    assert tuning.plan(next(branch.corners()), tuning.tuning, {}).todo
    heavy = {"torch", "numpy", "optuna", "pandas", "ray"} & set(sys.modules)
    assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=True)


def test_a_file_says_what_it_says(write_study):
    text = f"""{GOOD}
constraints: {{accuracy_drop: {{max: 0.05}}, epsilon: {{max: 8}}}}
sampler: {{name: nsga2, population: 6, seed: 3}}
prune: {{margin: 0.2, after: 2}}
trials: 30
"""
    tuning = load_tuning(write_study(text))
    study = tuning.study
    assert dict(study.objectives) == {"accuracy": "maximize", "leakage": "minimize"}
    assert study.constraints["accuracy_drop"].excess(0.07) == pytest.approx(0.02)
    assert study.sampler == NsgaII(population=6, seed=3)
    assert (study.prune.margin, study.prune.after, study.trials, study.parallel) == (0.2, 2, 30, 4)
    (parameter,) = tuning.space.branches["gaussian"].parameters
    assert parameter.name == "gaussian.noise_budget"
    assert parameter.distribution == Range(1e-4, 1.0, log=True)


@pytest.mark.parametrize(
    ("text", "sampler"),
    [("tpe", Tpe()), ("random", Random()), ("{name: gp, startup: 4}", Gp(startup=4))],
)
def test_samplers_by_name(write_study, text, sampler):
    assert load_tuning(write_study(f"{GOOD}sampler: {text}\n")).study.sampler == sampler


def test_distributions_may_stand_anywhere_in_a_defense(write_study):
    text = """
    attacks: [idlg]
    space:
      noisy:
        chain: [{name: clipping, bound: {float: [0.1, 10]}}, gaussian]
        noise_budget: {float: [1e-4, 1], log: true}
      shadowdef:
        noise_budget: 0.2
        placement: {choice: [map, gaussian]}
        generator.steps: {int: [100, 300], step: 50}
    objectives: {accuracy: maximize}
    """
    space = load_tuning(write_study(textwrap.dedent(text))).space
    chain, shadow = space.branches.values()
    assert {p.name: p.distribution for p in chain.parameters} == {
        "noisy.links.0.bound": Range(0.1, 10.0),
        "noisy.noise_budget": Range(1e-4, 1.0, log=True),
    }
    assert {p.name: p.distribution for p in shadow.parameters} == {
        "shadowdef.placement": Choice({"map": "map", "gaussian": "gaussian"}),
        "shadowdef.generator.steps": Range(100.0, 300.0, whole=True, step=50.0),
    }
    filled = chain.filled({"noisy.links.0.bound": 2.5, "noisy.noise_budget": 0.01}).plain()
    assert filled == {
        "name": "chain",
        "links": [{"name": "clipping", "bound": 2.5}, "gaussian"],
        "noise_budget": 0.01,
    }


def test_the_trials_of_an_optuna_trial_are_those_of_a_matrix(write_study, tmp_path):
    from harness.config.matrix import load_matrix
    from harness.plan.planner import make_plan

    path = write_study(f"{GOOD}attackers: [static, adaptive]\n")
    tuning = load_tuning(path)
    branch = tuning.space.branches["gaussian"]
    mine = tuning.plan(branch.filled({"gaussian.noise_budget": 0.25}), tuning.tuning, {})
    head = path.read_text().partition("attacks:")[0]
    matrix = tmp_path / "matrix.yaml"
    matrix.write_text(
        f"{head}matrix:\n  defense: [{{name: gaussian, noise_budget: 0.25}}]\n"
        "  attack: [{name: idlg, iterations: 1}]\n  attacker: [static, adaptive]\n"
    )
    theirs = make_plan(load_matrix(matrix), {})
    assert {t.trial_id for t in mine.todo} == {t.trial_id for t in theirs.todo}
    assert len(mine.todo) == 4


def test_a_file_may_extend_another(write_study):
    base = write_study(GOOD, name="base")
    path = base.with_name("other.yaml")
    path.write_text(
        "extends: base.yaml\nname: other\nspace: {pruning: {ratio: {float: [0, 0.5]}}}\ntrials: 3\n"
    )
    tuning = load_tuning(path)
    assert set(tuning.space.branches) == {"gaussian", "pruning"}
    assert (tuning.name, tuning.study.trials, tuning.settings.seeds) == ("other", 3, (0, 1))


CASES = [
    ("objectives: {accuracy: maximize, leakage: minimize}\n", "", "expected objectives, such as {accuracy"),
    ("accuracy: maximize", "accuray: maximize", "unknown key 'accuray'. Did you mean 'accuracy'"),
    (
        "accuracy: maximize",
        "accuracy: maximise",
        "expected maximize or minimize, got 'maximise'. Did you mean",
    ),
    ("  gaussian:", "  gausian:", "Did you mean 'gaussian'?"),
    ("noise_budget:", "sigmas:", "unknown key 'sigmas'. Did you mean 'sigma'?"),
    ("[1e-4, 1], log: true", "[-1, 1]", "expected a value >= 0"),
    ("[1e-4, 1], log: true", "[0, 1], log: true", "expected ends > 0 with log: true"),
    ("[1e-4, 1]", "[1, 1e-4]", "expected two finite ends, the lower one first"),
    ("[1e-4, 1]", "[1e-4]", "expected float: [low, high], got [0.0001]"),
    ("float: [1e-4, 1], log: true", "grid: [1, 2]", "expected a distribution"),
    ("float: [1e-4, 1], log: true", "choice: [1]", "expected at least two options"),
    ("float: [1e-4, 1], log: true", "choice: [1, 1]", "expected every option once"),
    ("log: true", "logs: true", "unknown key 'logs'. Did you mean 'log'?"),
    ("{noise_budget: {float: [1e-4, 1], log: true}}", "{noise_budget: 1}", "expected something to search"),
    ("attacks: [{name: idlg, iterations: 1}]\n", "", "expected a list of attacks to tune against"),
    ("name: idlg", "name: idgl", "Did you mean 'idlg'?"),
    ("inverting_gradients", "idlg", "expected attacks that are not tuned against"),
    ("objectives:", "sampler: tpee\nobjectives:", "Did you mean 'tpe'?"),
    ("objectives:", "trials: 0\nobjectives:", "expected an integer >= 1, got 0"),
    ("objectives:", "constraints: {epsilon: 8}\nobjectives:", "expected a mapping, got 8"),
    ("objectives:", "constraints: {epsilon: {}}\nobjectives:", "expected {max: number} or {min: number}"),
    ("objectives:", "matrix: {}\nobjectives:", "unknown key 'matrix'. Did you mean 'space'?"),
    ("objectives:", "leakage: {metric: lpips, floor: none}\nobjectives:", "expected floor: best for lpips"),
    ("objectives:", "attackers: [static, adaptiv]\nobjectives:", "Did you mean 'adaptive'?"),
]


@pytest.mark.parametrize(("old", "new", "message"), CASES, ids=[case[2][:40] for case in CASES])
def test_a_mistake_is_named_with_its_line(write_study, old, new, message):
    assert old in GOOD
    path = write_study(GOOD.replace(old, new, 1))
    found = mistakes(path)
    assert any(message in each for each in found), found
    assert len(found) == 1, found


def test_all_mistakes_are_told_at_once(write_study):
    path = write_study("attacks: [idgl]\nspace: {gausian: {}}\nobjectives: {leakage: down}\ntrials: many\n")
    lines = [int(each.split()[1].rstrip(":").split(":")[0]) for each in mistakes(path)]
    assert len(lines) >= 3
    assert lines == sorted(lines)


def test_what_the_study_varies_has_no_place_in_the_defaults(write_study, tmp_path):
    path = write_study(GOOD)
    path.write_text(
        path.read_text().replace("  targets: 2\n", "  targets: 2\n  attack: dlg\n  defense: sign\n")
    )
    assert [each.split(": ", 2)[2] for each in mistakes(path)] == [
        "expected this under attacks, got it under defaults",
        "expected this under space, got it under defaults",
    ]
    path.write_text(path.read_text().replace("  attack: dlg\n  defense: sign\n", ""))
    path.write_text(path.read_text().replace("targets: 2", "targets: {grid: [1, 2]}"))
    assert "expected one value of everything under defaults, got a sweep" in mistakes(path)[0]
