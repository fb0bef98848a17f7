"""Calling `bench` in this process, and matrices small enough to run."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.cli import main

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    """Paths such as configs/smoke.yaml are those of the repository."""
    monkeypatch.chdir(ROOT)


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def bench(capsys):
    """Call a command with its arguments and return its exit code and what it wrote."""

    def call(*arguments):
        code = main.run([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return call


TINY = """
version: 1
name: tiny
seeds: [0, 1]
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 1, batch_size: 1}
  targets: 2
matrix:
  defense: [none, {name: gaussian, sigma: 1e-2}]
  attack: [{name: idlg, iterations: 2}, random_guess]
"""


@pytest.fixture
def write_matrix(tmp_path):
    """Write the text of a matrix, by default a tiny one that runs in seconds, to a file."""

    def write(text=TINY, name="tiny"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(textwrap.dedent(text))
        return path

    return write
