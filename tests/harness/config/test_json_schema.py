"""The schema takes what `load_matrix` takes, and refuses what needs no context to be refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from harness.config.json_schema import matrix_schema
from harness.config.matrix import load_matrix
from harness.config.plugins import installed
from harness.config.yaml_loader import load_yaml

ROOT = Path(__file__).parents[3]
MATRICES = sorted((ROOT / "configs").rglob("*.yaml"))
HEAD = "version: 1\ndefaults: {data: digits, model: lenet}\n"


@pytest.fixture(scope="module")
def schema():
    return matrix_schema(installed())


@pytest.fixture(scope="module")
def fits(schema):
    """Whether the text of a matrix fits the schema."""
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    return lambda path: validator.is_valid(load_yaml(path).plain())


def test_the_committed_schema_is_that_of_the_plugins(schema):
    committed = json.loads((ROOT / "configs" / "matrix.schema.json").read_text())
    assert committed == schema, "run `bench schema > configs/matrix.schema.json`"


@pytest.mark.parametrize(
    "path", [p for p in MATRICES if not {"cluster", "tune"} & set(p.parts)], ids=lambda p: p.stem
)
def test_shipped_matrices_fit(path, fits):
    assert fits(path)


def blocks_of_docs():
    for path in sorted((ROOT / "docs").rglob("*.md")):
        for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL)):
            if text.startswith("version:"):
                yield pytest.param(text, id=f"{path.stem}-{number}")


@pytest.mark.parametrize("text", list(blocks_of_docs()))
def test_matrices_in_the_docs_fit(text, fits, tmp_path):
    path = tmp_path / "docs.yaml"
    path.write_text(text)
    assert fits(path)


@pytest.mark.parametrize(
    "text",
    [
        "matrix: {attack: [dlg, {name: idlg, restarts: {grid: [1, 2]}}]}",
        "matrix: {attack: {grid: [dlg, idlg]}, attack.restarts: [1, {range: [2, 4]}]}",
        "matrix: {attack: [dlg], federation.partition: [iid, {name: dirichlet, alpha: 0.5}]}",
        "matrix: {attack: [dlg], defense: [{chain: [clipping, gaussian], noise_budget: [1e-3]}]}",
        "matrix: {attack: [dlg], defense: [gaussian], noise_budget: {gaussian: auto}}",
        "matrix: {attack: [dlg], federation.partition.name: [dirichlet], federation.partition.alpha: [1.0]}",
        "matrix: {attack: [dlg]}\ninclude: [{attack: idlg, federation.schedule.name: cosine}]",
        "matrix: {attack: [dlg], threat_model.knowledge.labels: [known, unknown]}",
        "matrix: {zip: [{attack: [dlg, idlg]}, {model.convs: [2, 3], targets: [3, 4]}]}",
        "seeds: {range: [0, 3]}\nmatrix: {attack: [dlg]}",
        "matrix: {attack: [dlg]}\nresources: {attack: {timeout: 90s}, dlg: {gpus: 0.5}}",
        "matrix: {attack: [dlg, idlg]}\nexclude: [{attack: dlg, model.convs: 4, seed: 0}]\nmax_failures: 1",
        "matrix: {attack: [dlg]}\nmetrics: [lpips_vgg]",
    ],
)
def test_all_of_the_grammar_is_in_it(text, fits, tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(HEAD + text)
    load_matrix(path)
    assert fits(path)


@pytest.mark.parametrize(
    "text",
    [
        "matirx: {attack: [dlg]}",
        "matrix: {atack: [dlg]}",
        "matrix: {attack: [dlg], seeds: [1]}",
        "matrix: {attack: dlg}",
        "matrix: {attack: []}",
        "matrix: {attack: [dgl]}",
        "matrix: {attack: [{name: dlg, iteratons: 5}]}",
        "matrix: {attack: [{name: dlg, iterations: 0}]}",
        "matrix: {attack: [{name: dlg, iterations: '5'}]}",
        "matrix: {attack: [{name: inverting_gradients, cost: cosin}]}",
        "matrix: {attack: [dlg], federation.batchsize: [1]}",
        "matrix: {attack: [dlg], federation: [{lr: -1}]}",
        "matrix: {attack: [dlg], federation.lr: [{geomspace: {start: 1}}]}",
        "matrix: {attack: [dlg], attacker: [clever]}",
        "matrix: {attack: [dlg], observe: [{kind: all}]}",
        "matrix: {attack: [dlg], defense: [{chain: []}]}",
        "matrix: {attack: [dlg], defense: [gaussian], noise_budget: {gaussian: some}}",
        "matrix: {attack: [dlg], defense: [gaussian], noise_budget: {gausian: [1]}}",
        "matrix: {attack: [dlg]}\nseeds: [-1]",
        "matrix: {attack: [dlg]}\nresources: {attack: {timeout: 2 fortnights}}",
        "matrix: {attack: [dlg]}\nmax_failures: 1.5",
        "matrix: {attack: [dlg]}\nmetrics: [ssim]",
        "matrix: {attack: [dlg]}\nexclude: [{atack: dlg}]",
    ],
)
def test_what_needs_no_context_is_refused(text, fits, tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(HEAD + text)
    assert not fits(path)
