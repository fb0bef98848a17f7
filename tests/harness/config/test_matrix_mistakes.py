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
        ["m.yaml:8", "defaults.federation.batchsize",
         "unknown key 'batchsize'. Did you mean 'batch_size' or 'batch_sizes'? Allowed"],
        ["m.yaml:9", "defaults.federation.clients", "expected an integer, got '24_000' (a string)"],
        ["m.yaml:10", "defaults.federation.participation", "expected a value <= 1, got 2"],
        ["m.yaml:11", "defaults.federation.partition.alhpa",
         "unknown key 'alhpa'. Did you mean 'alpha'? Allowed"],
        ["m.yaml:12", "defaults.federation.batch_norm", "expected train or eval, got 'no'"],
        ["m.yaml:13", "defaults.targets", "expected an integer >= 1, got 0"],
        ["m.yaml:14", "defaults.threat_model.position",
         "expected server, participant or eavesdropper, got 'srver'. Did you mean 'server'?"],
        ["m.yaml:14", "defaults.threat_model.knowledge.public_data", "expected true or false, got 'no'"],
        ["m.yaml:17", "matrix.attack.0.iterations", "expected an integer, got 1000.0"],
        ["m.yaml:18", "matrix.attack.1.name", "unknown attack 'idgl'. Did you mean 'idlg'? Available"],
        ["m.yaml:19", "matrix.attack.2", "expected the name of an attack, got 5"],
        ["m.yaml:20", "matrix.federation.batch_size", "expected a list of values or a sweep, got 8"],
        ["m.yaml:21", "resources.attack.cpus", "expected a value > 0, got -1"],
        ["m.yaml:21", "resources.attack.timeout",
         "expected seconds or a time such as 90s, 15m, 2h or 1d, got '2 fortnights'"],
        ["m.yaml:22", "max_failures",
         "expected a number of trials (an integer >= 0) or a share of them (a fraction up to 1.0), got 1.5"],
    ]  # fmt: skip


def cases() -> list[tuple[str, str]]:
    """Return the blocks of `mistakes.txt`: a matrix's text and the message it leads to."""
    blocks = (Path(__file__).parent / "mistakes.txt").read_text().split("\n\n")
    return [
        (text + "\n", message)
        for text, arrow, message in (block.rstrip().partition("\n=> ") for block in blocks)
        if arrow
    ]


@pytest.mark.parametrize(("text", "message"), cases())
def test_every_mistake_names_its_line_and_what_is_right(mistakes: Mistakes, text: str, message: str) -> None:
    (found,) = mistakes(HEAD + text)
    assert found.startswith(f"m.yaml:{message}")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("matrix: {attack: [dlg]}\n", [
            "m.yaml:1: expected `version: 1`, got none",
            "m.yaml:1: matrix: expected data: under defaults, under matrix or in the cell, got none",
            "m.yaml:1: matrix: expected model: under defaults, under matrix or in the cell, got none",
        ]),
        ("- a\n", ["m.yaml:1: expected a mapping, got a list"]),
        ("version: 1\ndefaults: [x]\nmatrix: {attack: [dlg]}\n", [
            "m.yaml:2: defaults: expected a mapping of sections, got a list",
        ]),
        ("version: 1\n", [
            "m.yaml:1: expected at least one cell, got none: there is no axis, and nothing under include",
        ]),
    ],
)  # fmt: skip
def test_documents_that_lack_the_main_thing(mistakes: Mistakes, text: str, found: list[str]) -> None:
    assert mistakes(text) == found


def test_mistakes_in_an_extended_file_name_that_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "version: 1\n\ndefaults: {data: digits, model: {name: lenet, convs: 9}}\n"
    )
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
