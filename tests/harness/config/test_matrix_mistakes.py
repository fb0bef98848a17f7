from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fl.errors import ConfigError
from harness.config.matrix import load_matrix

Mistakes = Callable[[str], list[str]]
HEAD = "version: 1\ndefaults: {data: digits, model: lenet}\n"


def test_all_mistakes_of_a_file_at_once(mistakes: Mistakes) -> None:
    text = """\
version: 2
sedes: [0]
seeds: [0, 0, -1, 1.5]
defaults:
  data: {name: digts}
  model: {name: lenet, convs: 7}
  federation:
    batchsize: 3
    clients: 24_000
    participation: 2
    partition: {name: dirichlet, alhpa: 0.1}
    batch_norm: no
  targets: 0
  threat_model: {position: srver, knowledge: {public_data: no}}
matrix:
  attack:
    - {name: dlg, iterations: 1e3}
    - {name: idgl}
    - 5
  federation.batch_size: 8
resources: {attack: {cpus: -1, timeout: 2 fortnights}}
max_failures: 1.5
"""
    places = [line.split(": ")[:3] for line in mistakes(text)]
    assert places == [
        ["m.yaml:1", "version", "expected 1, got 2"],
        ["m.yaml:2", "sedes", "unknown key 'sedes'. Did you mean 'seeds'? Allowed"],
        ["m.yaml:3", "seeds.1", "expected every seed once, got 0 again"],
        ["m.yaml:3", "seeds.2", f"expected an integer from 0 to {2**63 - 1}, got -1"],
        ["m.yaml:3", "seeds.3", f"expected an integer from 0 to {2**63 - 1}, got 1.5"],
        ["m.yaml:5", "defaults.data.name", "unknown dataset 'digts'. Did you mean 'digits'? Available"],
        ["m.yaml:6", "defaults.model.convs", "expected 2, 3 or 4, got 7"],
        ["m.yaml:8", "defaults.federation.batchsize", "unknown key 'batchsize'. Did you mean 'batch_size'? Allowed"],
        ["m.yaml:9", "defaults.federation.clients", "expected an integer, got '24_000' (a string)"],
        ["m.yaml:10", "defaults.federation.participation", "expected a value <= 1, got 2"],
        ["m.yaml:11", "defaults.federation.partition.alhpa", "unknown key 'alhpa'. Did you mean 'alpha'? Allowed"],
        ["m.yaml:12", "defaults.federation.batch_norm", "expected train or eval, got 'no'"],
        ["m.yaml:13", "defaults.targets", "expected an integer >= 1, got 0"],
        ["m.yaml:14", "defaults.threat_model.position",
         "expected server, participant or eavesdropper, got 'srver'. Did you mean 'server'?"],
        ["m.yaml:14", "defaults.threat_model.knowledge.public_data", "expected true or false, got 'no'"],
        ["m.yaml:17", "matrix.attack.0.iterations", "expected an integer, got 1000.0"],
        ["m.yaml:18", "matrix.attack.1.name", "unknown attack 'idgl'. Did you mean 'idlg' or 'dlg'? Available"],
        ["m.yaml:19", "matrix.attack.2", "expected the name of an attack, got 5"],
        ["m.yaml:20", "matrix.federation.batch_size", "expected a list of values or a sweep, got 8"],
        ["m.yaml:21", "resources.attack.cpus", "expected a value > 0, got -1"],
        ["m.yaml:21", "resources.attack.timeout",
         "expected seconds or a time such as 90s, 15m, 2h or 1d, got '2 fortnights'"],
        ["m.yaml:22", "max_failures",
         "expected a number of trials (an integer >= 0) or a share of them (a fraction up to 1.0), got 1.5"],
    ]  # fmt: skip


ATTACK = "matrix: {attack: [dlg]}\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # axes
        ("matrix: {atack: [dlg]}\n", "m.yaml:3: matrix.atack: unknown key 'atack'. Did you mean 'attack'"),
        ("matrix: {attack: [dlg], batch_size: [1]}\n",
         "m.yaml:3: matrix.batch_size: unknown key 'batch_size'. Did you mean 'federation.batch_size'?"),
        ("matrix: {attack: [dlg], seeds: [1]}\n",
         "m.yaml:3: matrix.seeds: expected `seeds: [...]` at the top level of the file"),
        ("matrix: {attack: [dlg], dataset: [digits]}\n", "m.yaml:3: matrix.dataset: unknown key 'dataset'. Did you mean 'data'?"),
        ("matrix: {attack: [dlg], federation.: [1]}\n", "m.yaml:3: matrix.federation.: expected a dotted path"),
        ("matrix: {attack: [dlg], federation.batchsize: [1]}\n",
         "m.yaml:3: matrix.federation.batchsize: unknown key 'batchsize'. Did you mean 'batch_size'"),
        ("matrix: {attack: [dlg, random_guess], attack.iterations: [5]}\n",
         "m.yaml:3: matrix.attack.iterations: unknown key 'iterations'. Nothing can be set here."),
        ("matrix: {attack: []}\n", "m.yaml:3: matrix.attack: expected at least one value, got an empty list"),
        ("matrix: {attack: dlg}\n", "m.yaml:3: matrix.attack: expected a list of values or a sweep, got 'dlg'"),
        ("matrix: [dlg]\n", "m.yaml:3: matrix: expected a mapping, got a list"),
        ("matrix:\n  attack: [dlg]\n  attacker:\n    - static\n    - adaptve\n",
         "m.yaml:7: matrix.attacker.1: expected static or adaptive, got 'adaptve'. Did you mean 'adaptive'?"),
        # zip
        ("matrix:\n  attack: [dlg]\n  zip: {model: [lenet], data: [digits, retina]}\n",
         "m.yaml:5: matrix.zip: expected axes of equal length under zip, got: model has 1, data has 2"),
        ("matrix:\n  attack: [dlg]\n  zip: 3\n", "m.yaml:5: matrix.zip: expected {axis: [...], axis: [...]} under zip, got 3"),
        ("matrix:\n  attack: [dlg]\n  zip: {attack: [idlg], attacker: [static]}\n",
         "m.yaml:5: matrix.zip.attack: expected each axis once, got 'attack' again (line 4)"),
        # sweeps
        ("matrix: {attack: [{name: dlg, iterations: {grid: []}}]}\n",
         "m.yaml:3: matrix.attack.0.iterations.grid: expected at least one value, got an empty grid"),
        ("matrix: {attack: [{name: dlg, iterations: {grid: 5}}]}\n",
         "m.yaml:3: matrix.attack.0.iterations.grid: expected a list of values under grid, got 5"),
        ("matrix: {attack: [{name: dlg, iterations: {range: [1.5, 3]}}]}\n",
         "m.yaml:3: matrix.attack.0.iterations.range: expected whole numbers [start, stop]"),
        ("matrix: {attack: [{name: dlg, iterations: {range: [3, 3]}}]}\n",
         "m.yaml:3: matrix.attack.0.iterations.range: expected at least one value, got an empty range"),
        ("matrix: {attack: [{name: dlg, iterations: {linspace: {start: 1, stop: 2}}}]}\n",
         "m.yaml:3: matrix.attack.0.iterations.linspace: expected {start: number, stop: number, num: integer}"),
        ("matrix: {attack: [{name: dlg, iterations: {linspace: {start: 1, stop: 2, num: true}}}]}\n",
         "m.yaml:3: matrix.attack.0.iterations.linspace: expected {start: number, stop: number, num: integer}"),
        ("matrix: {attack: [{name: dlg, iterations: {linspace: {start: 1, stop: 2, num: 1}}}]}\n",
         "m.yaml:3: matrix.attack.0.iterations.linspace: expected num from 2"),
        ("matrix: {attack: [{name: dlg, tolerance: {geomspace: {start: 0, stop: 2, num: 3}}}]}\n",
         "m.yaml:3: matrix.attack.0.tolerance.geomspace: expected start and stop > 0 under geomspace"),
        ("matrix: {attack: [{name: dlg, iterations: {grid: [5, 5]}}]}\n",
         "m.yaml:3: matrix.attack.0: expected every value once, got a sweep that repeats one"),
        # plug-ins and their options
        ("matrix: {attack: [{nmae: dlg}]}\n", "m.yaml:3: matrix.attack.0: expected the name of an attack, got a mapping"),
        ("matrix: {attack: [{name: 7}]}\n", "m.yaml:3: matrix.attack.0.name: expected the name of an attack, got 7"),
        ("matrix: {attack: [dlg]}\ninclude:\n  - {attack: idlg, model: {name: convnett}}\n",
         "m.yaml:5: include.0.model.name: unknown model 'convnett'. Did you mean 'convnet'?"),
        ("matrix: {attack: [{name: dlg, iterations: .inf}]}\n", "m.yaml:3: matrix.attack.0.iterations: expected an integer, got inf"),
        ("matrix: {attack: [{name: inverting_gradients, total_variation: .nan}]}\n",
         "m.yaml:3: matrix.attack.0.total_variation: expected a finite number, got nan"),
        ("matrix: {attack: [{name: inverting_gradients, signed: 1}]}\n",
         "m.yaml:3: matrix.attack.0.signed: expected true or false, got 1"),
        ("matrix: {attack: [{name: inverting_gradients, cost: cosin}]}\n",
         "m.yaml:3: matrix.attack.0.cost: expected cosine or l2, got 'cosin'. Did you mean 'cosine'?"),
        ("matrix:\n  attack:\n    - {name: inverting_gradients,\n       restarts: 2,\n       init: zeros}\n",
         "m.yaml:5: matrix.attack.0: expected restarts: 1 with init: zeros (all would be alike)"),
        ("matrix: {attack: [dlg], data: [folder]}\n", "m.yaml:3: matrix.data.0.root: the key root is required, and missing"),
        # sections without plug-ins
        ("matrix: {attack: [dlg], federation.local_steps: [2]}\n",
         "m.yaml:3: matrix: local_steps and local_epochs need algorithm: fedavg"),
        ("matrix: {attack: [dlg], federation.partition: [dirichle]}\n",
         "m.yaml:3: matrix.federation.partition: expected iid or dirichlet, got 'dirichle'. Did you mean 'dirichlet'?"),
        ("matrix: {attack: [dlg], federation.partition: [{alpha: 1}]}\n",
         "m.yaml:3: matrix.federation.partition: the key name is required, and missing"),
        ("matrix: {attack: [dlg], federation.partition: [{name: iid, alpha: 1}]}\n",
         "m.yaml:3: matrix.federation.partition.0.alpha: unknown key 'alpha'. Nothing can be set here."),
        ("matrix: {attack: [dlg], federation: [5]}\n", "m.yaml:3: matrix.federation.0: expected a mapping, got 5"),
        ("matrix: {attack: [dlg], observe.rounds: [[0, 1]]}\n",
         "m.yaml:3: matrix: observe.rounds needs observe.kind: global_model"),
        ("matrix: {attack: [dlg], threat_model: [{behaviour: malicious, manipulation: trap}]}\n",
         "m.yaml:3: matrix.threat_model.0.manipulation: unknown manipulation 'trap'."),
        ("matrix: {attack: [dlg], targets: [true]}\n", "m.yaml:3: matrix.targets.0: expected an integer >= 1, got true"),
        # noise budgets
        ("matrix: {attack: [dlg], defense: [gausian]}\n",
         "m.yaml:3: matrix.defense.0: unknown defense 'gausian'. Did you mean 'gaussian'?"),
        ("matrix:\n  attack: [dlg]\n  defense:\n    - none\n    - {name: pruning, noise_budget: [0.2, 1.5]}\n",
         "m.yaml:7: matrix.defense.1.noise_budget.1: expected a value <= 1, got 1.5"),
        ("matrix: {attack: [dlg], defense: [{name: pruning, noise_budget: much}]}\n",
         "m.yaml:3: matrix.defense.0.noise_budget: expected a number (share of entries zeroed) or a list of numbers "
         "or 'auto', got 'much'"),
        ("matrix: {attack: [dlg], defense: [{name: pruning, noise_budget: []}]}\n",
         "m.yaml:3: matrix.defense.0.noise_budget: expected at least one noise budget, got an empty list"),
        ("matrix: {attack: [dlg], defense: [{name: pruning, noise_budget: [0.2, 0.20]}]}\n",
         "m.yaml:3: matrix.defense.0: expected every value once, got a sweep that repeats one"),
        ("matrix: {attack: [dlg], defense: [{name: none, noise_budget: 1}]}\n",
         "m.yaml:3: matrix.defense.0.noise_budget: 'none' has no noise budget; leave noise_budget out"),
        ("matrix: {attack: [dlg], defense: [{name: gaussian, sigma: 1, noise_budget: 1}]}\n",
         "m.yaml:3: matrix.defense.0.sigma: sigma is the noise budget of 'gaussian': give sigma or noise_budget, not both"),
        ("matrix:\n  attack: [dlg]\n  defense: [gaussian]\n  noise_budget: {gausian: [1]}\n",
         "m.yaml:6: matrix.noise_budget.gausian: unknown defense 'gausian'. Did you mean 'gaussian'?"),
        ("matrix:\n  attack: [dlg]\n  defense: [gaussian]\n  noise_budget: {pruning: [1]}\n",
         "m.yaml:6: matrix.noise_budget.pruning: expected a cell with the defense 'pruning', got none"),
        ("matrix: {attack: [dlg], noise_budget: [1]}\n",
         "m.yaml:3: matrix.noise_budget: expected {defense: [numbers] or auto}, as every defense has its own unit; got a list"),
        ("matrix: {attack: [dlg], defense: [{chain: [clipping, {name: gausian}]}]}\n",
         "m.yaml:3: matrix.defense.0.chain.1.name: unknown defense 'gausian'. Did you mean 'gaussian'?"),
        ("matrix: {attack: [dlg], defense: [{chain: [{name: clipping, bound: -1}, gaussian]}]}\n",
         "m.yaml:3: matrix.defense.0.chain.0.bound: expected a value > 0, got -1"),
        ("matrix: {attack: [dlg], defense: [{chain: []}]}\n",
         "m.yaml:3: matrix.defense.0.chain: expected at least 1 item, got 0"),
        # exclude and include
        (ATTACK + "exclude:\n  - {attack: idlg}\n", "m.yaml:5: exclude.0: expected to leave out at least one cell, matches none"),
        (ATTACK + "exclude: [{atack: dlg}]\n", "m.yaml:4: exclude.0.atack: unknown key 'atack'. Did you mean 'attack'"),
        (ATTACK + "exclude: [{attack.iteratons: 5}]\n",
         "m.yaml:4: exclude.0.attack.iteratons: unknown key 'iteratons'. Did you mean 'iterations'?"),
        (ATTACK + "exclude: {attack: dlg}\n", "m.yaml:4: exclude: expected a list of mappings, got a mapping"),
        (ATTACK + "exclude: [dlg]\n", "m.yaml:4: exclude.0: expected keys and values of cells, got 'dlg'"),
        (ATTACK + "exclude: [{attack: dlg}]\n", "m.yaml:3: matrix: expected at least one cell, got none: `exclude` removes all"),
        (ATTACK + "include: [dlg]\n", "m.yaml:4: include.0: expected a mapping of sections, got 'dlg'"),
        (ATTACK + "include:\n  - {attack: dlg}\n", "m.yaml:5: include.0: expected a new cell, got one of the product of line 3 again"),
        (ATTACK + "include:\n  - {attack: idlg}\n  - {attack: {name: idlg}}\n",
         "m.yaml:6: include.1: expected a new cell, got that of line 5 again"),
        # duplicates
        ("matrix:\n  attack:\n    - dlg\n    - idlg\n    - {name: dlg}\n",
         "m.yaml:7: matrix.attack.2: expected every cell once, got cells that the value on line 5 gives already"),
        # settings
        (ATTACK + "seeds: 3\n", "m.yaml:4: seeds: expected a list of integers or {range: [start, stop]}, got 3"),
        (ATTACK + "seeds: []\n", "m.yaml:4: seeds: expected a list of integers or {range: [start, stop]}, got an empty list"),
        (ATTACK + "seeds: {range: [3, 3]}\n", "m.yaml:4: seeds.range: expected at least one value, got an empty range"),
        (ATTACK + "name: a/b\n", "m.yaml:4: name: expected a name of letters, digits, '.', '_' and '-', got 'a/b'"),
        (ATTACK + "name: ..\n", "m.yaml:4: name: expected a name of letters"),
        (ATTACK + "store: {url: x}\n", "m.yaml:4: store.url: unknown key 'url'. Did you mean 'uri'?"),
        (ATTACK + "resources: {atack: {gpus: 1}}\n", "m.yaml:4: resources.atack: unknown key 'atack'. Did you mean 'attack'?"),
        (ATTACK + "resources: {dlg: {gpu: 1}}\n", "m.yaml:4: resources.dlg.gpu: unknown key 'gpu'. Did you mean 'gpus'?"),
        (ATTACK + "resources: {dlg: 3}\n", "m.yaml:4: resources.dlg: expected a mapping, got 3"),
        (ATTACK + "max_failures: many\n", "m.yaml:4: max_failures: expected a number of trials"),
        # missing files
        (ATTACK + "extends: none.yaml\n", "m.yaml:4: extends: expected a file to extend, got no file at"),
        (ATTACK + "extends: [a]\n", "m.yaml:4: extends: expected a path, got a list"),
        ("matrix:\n  attack: [dlg]\n  data:\n    - {name: folder, root: /no/such/folder}\n",
         "m.yaml:6: matrix.data.0: /no/such/folder: expected"),
        ("matrix: {}\n", "m.yaml:3: matrix: expected at least one cell, got none: there is no axis"),
        ("targets: 3\n" + ATTACK, "m.yaml:3: targets: unknown key 'targets'."),
    ],
)  # fmt: skip
def test_every_mistake_names_its_line_and_what_is_right(mistakes: Mistakes, text: str, found: str) -> None:
    (message,) = mistakes(HEAD + text)
    assert message.startswith(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("matrix: {attack: [dlg]}\n", [
            "m.yaml:1: expected `version: 1`, got none",
            "m.yaml:1: matrix: expected data: under defaults, under matrix or in the cell, got none",
            "m.yaml:1: matrix: expected model: under defaults, under matrix or in the cell, got none",
        ]),
        ("- a\n", ["m.yaml:1: expected a mapping, got a list"]),
        ("version: 1\ndefaults: [x]\nmatrix: {attack: [dlg]}\n", ["m.yaml:2: defaults: expected a mapping, got a list"]),
        ("version: 1\n", ["m.yaml:1: expected at least one cell, got none: there is no axis, and nothing under include"]),
    ],
)  # fmt: skip
def test_documents_that_lack_the_main_thing(mistakes: Mistakes, text: str, found: list[str]) -> None:
    assert mistakes(text) == found


def test_mistakes_in_an_extended_file_name_that_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("version: 1\n\ndefaults: {data: digits, model: {name: lenet, convs: 9}}\n")
    (tmp_path / "m.yaml").write_text("extends: base.yaml\nmatrix: {attack: [dgl]}\n")
    with pytest.raises(ConfigError) as caught:
        load_matrix(tmp_path / "m.yaml")
    assert [(Path(p.path).name, p.line, p.key) for p in caught.value.problems] == [
        ("base.yaml", 3, "defaults.model.convs"),
        ("m.yaml", 2, "matrix.attack.0"),
    ]


@pytest.mark.parametrize("other", ["m.yaml", "third.yaml"])
def test_only_one_level_of_extends(tmp_path: Path, other: str) -> None:
    (tmp_path / "m.yaml").write_text("extends: base.yaml\n")
    (tmp_path / "base.yaml").write_text(f"version: 1\nextends: {other}\n")
    with pytest.raises(ConfigError) as caught:
        load_matrix(tmp_path / "m.yaml")
    (problem,) = caught.value.problems
    assert (Path(problem.path).name, problem.line, problem.key) == ("base.yaml", 2, "extends")
    assert "expected one level of extends" in problem.message


def test_one_mistake_in_the_defaults_is_told_once_however_many_cells_it_spoils(mistakes: Mistakes) -> None:
    found = mistakes(
        "version: 1\ndefaults: {data: digits, model: lenet, attack: {iterations: -1}}\n"
        "matrix: {attack: [dlg, idlg], attack.restarts: [1, 2, 3]}\n"
    )
    assert found == ["m.yaml:2: defaults.attack.iterations: expected a value >= 1, got -1"]
