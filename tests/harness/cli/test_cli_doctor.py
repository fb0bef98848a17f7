"""`bench doctor` tells what is here, and finds what is broken."""

from __future__ import annotations

import sys
from importlib.metadata import version

import pytest


def verdicts(done):
    return {finding["check"]: finding["verdict"] for finding in done.json}


def test_a_machine_that_runs_the_tests_has_no_problem(bench, tmp_path):
    done = bench("doctor", "--json", "--no-ray", "--results", tmp_path / "results")
    assert done.code == 0
    assert "problem" not in verdicts(done).values()
    assert verdicts(done).keys() >= {
        "python",
        "packages",
        "torch",
        "torchvision",
        "gpu",
        "memory",
        "cache",
        "data",
    }
    found = {finding["check"]: finding["found"] for finding in done.json}
    assert version("torch") in found["torch"]
    assert str(tmp_path / "results") in found["results"]
    assert not (tmp_path / "results").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_ray_is_started_and_stopped(bench):
    done = bench("doctor", "--json")
    assert verdicts(done)["ray"] == "ok"


def test_a_torchvision_that_does_not_load_is_a_problem(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # what an import that fails leaves
    done = bench("doctor", "--json", "--no-ray")
    assert done.code == 1
    assert verdicts(done)["torchvision"] == "problem"


def test_an_unwritable_cache_is_a_problem(bench, monkeypatch):
    monkeypatch.setenv("LEAKBENCH_CACHE", "/proc/nowhere")
    done = bench("doctor", "--no-ray")
    assert done.code == 1
    (line,) = [line for line in done.out.splitlines() if " cache " in line]
    assert "problem" in line
    assert "LEAKBENCH_CACHE" in line
    (other,) = [line for line in done.out.splitlines() if " python " in line]
    assert other.index("python") == line.index("cache")  # whatever the verdict


def test_an_index_that_does_not_answer_is_only_a_note(bench, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    done = bench("doctor", "--json", "--no-ray")
    assert done.code == 0
    assert verdicts(done)["package index"] == "note"
