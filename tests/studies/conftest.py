"""Scripts of studies, and their matrices made small and run in this process."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from harness.config.matrix import load_matrix
from harness.execute.session import RunRequest, inline, run_matrix
from harness.plan.planner import make_plan

ROOT = Path(__file__).parents[2]


class Silent:
    """Hears nothing of a run (`harness.execute.events.RunListener`)."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


def matrix_of(name):
    return ROOT / "configs" / "seeds" / f"{name}.yaml"


@pytest.fixture(scope="session")
def script():
    """From a study's name to its script."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "studies" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def plan():
    """From a study's name to the specs of its matrix."""
    return lambda name: [trial.spec for trial in make_plan(load_matrix(matrix_of(name)), {}).trials]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """From a study's name, and what makes the text of its matrix small, to the folder of its results."""
    folder = tmp_path_factory.mktemp("studies")

    def run(name, smaller):
        path = folder / f"{name}.yaml"
        path.write_text(smaller(matrix_of(name).read_text()))
        assert run_matrix(RunRequest(load_matrix(path), folder / "results", inline), Silent()).exit_code == 0
        return folder / "results" / name

    return run
