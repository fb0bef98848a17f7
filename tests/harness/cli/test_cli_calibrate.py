"""`bench calibrate`: the table it writes, and a run that uses it."""

import json

import pytest

from attacks.engine.table import VARIABLE, Choice, EngineTable, shipped
from harness.cli.main import run


@pytest.fixture(autouse=True)
def _no_table(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def test_it_writes_a_table_with_the_models_measured_and_keeps_the_others(tmp_path, capsys):
    path = tmp_path / "mine.json"
    arguments = ["--size", "16", "--lanes", "1", "--iterations", "1", "--repeats", "1", "--json"]
    assert run(["calibrate", "lenet,convs=2", *arguments, "--output", str(path)]) == 0

    told = json.loads(capsys.readouterr().out)
    table = EngineTable.parse(path.read_text())
    (chosen,) = [row for row in told["measured"] if row["chosen"]]
    assert table.choices("lenet,convs=2", "cpu")[0] == Choice(chosen["formulation"], chosen["lanes"])
    assert table.models["cpu"].keys() == {*shipped().models["cpu"], "lenet,convs=2"}
    assert told["engine_table"] == table.digest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lenet", "--lanes", "1,2"], "multiples of 16"),
        (["lenet", "--lanes", "many"], "numbers"),
        (["lenet,convs"], "OPTION=VALUE"),
        (["lemet"], "lenet"),
        (["lenet,convs=9"], "convs"),
    ],
)
def test_mistakes_are_usage_errors(arguments, words, tmp_path, capsys):
    assert run(["calibrate", *arguments, "--output", str(tmp_path / "none.json")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()
