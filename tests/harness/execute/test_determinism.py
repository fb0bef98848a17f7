"""A trial's rows are a function of its spec: whatever the order, the bundles and the accidents of the run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from harness.config.matrix import load_matrix
from harness.execute.inline import InlineExecutor
from harness.execute.session import RunRequest, choose_executor, inline, run_matrix

MATRIX = """
name: bits
seeds: [0, 1]
defaults:
  data: {name: digits, size: 8}
  model: {name: lenet, convs: 2}
  federation: {clients: 4, rounds: 1, batch_size: 1}
  targets: 2
matrix:
  defense: [none, gaussian, pruning]
  noise_budget: {gaussian: [1e-3, 1e-2], pruning: [0.5]}
  attack: [{name: dlg, iterations: 1, restarts: 2}, {name: inverting_gradients, iterations: 6}]
include:
  - attack: {name: inverting_gradients, iterations: 4, unroll: true}
    federation: &average
      {algorithm: fedavg, clients: 6, rounds: 3, chunk: 2, batch_size: 2, local_steps: 2, lr: 0.1}
    observe: {round: 2}
  - attack: {name: inverting_gradients, iterations: 4}
    defense: {name: gaussian, sigma: 1e-3}
    federation: *average
    observe: {round: 2}
"""
TRIALS = 20
COST = ["wall_s", "cpu_s", "gpu_s", "peak_mem_mib", "attempts", "finished"]
KEYS = {
    "trials": ["trial_id"],
    "reconstructions": ["trial_id", "target_id", "reconstruction_index"],
    "traces": ["trial_id", "target_id", "iteration"],
    "rounds": ["federation_key", "round"],
}


@pytest.fixture(scope="module", autouse=True)
def _no_lpips():
    """Here LPIPS takes part, where its weights can be had."""


def read(folder):
    """Every table of an experiment, but for what each run measures anew."""
    tables = {name: pd.read_parquet(folder / name) for name in KEYS}
    tables["trials"] = tables["trials"].drop(columns=COST)
    return {name: table.sort_values(KEYS[name], ignore_index=True) for name, table in tables.items()}


def assert_same_rows(folder, reference):
    found, expected = read(folder), read(reference)
    assert not found["trials"]["trial_id"].duplicated().any()
    for name in KEYS:
        pd.testing.assert_frame_equal(found[name], expected[name], check_exact=True, obj=name)


class Nobody:
    """Watches a run without a word."""

    def started(self, total, lanes, description):
        pass

    progress = trial = message = finished = lambda self, heard: None


class BackwardsExecutor(InlineExecutor):
    """Takes several items and runs the latest first, as if it had many lanes."""

    def __init__(self, settings):
        super().__init__(settings)
        self._waiting = []

    def lanes(self):
        return 3

    def can_accept(self, item):
        return len(self._waiting) < 7

    def submit(self, item):
        self._waiting.append(item)

    def running(self):
        return len(self._waiting)

    def poll(self, timeout):
        super().submit(self._waiting.pop())
        return super().poll(timeout)


def run(folder, executor, **options):
    """Run the matrix, in instalments if it is limited, and return the experiment's folder."""
    folder.mkdir()
    path = folder / "bits.yaml"
    path.write_text(f"version: 1\n{MATRIX}")
    matrix = load_matrix(path)
    for _ in range(TRIALS):
        result = run_matrix(RunRequest(matrix, folder, executor, **options), Nobody())
        assert not result.failed
        if result.exit_code == 0:
            break
    return folder / "bits"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The rows of an undisturbed inline run."""
    folder = run(tmp_path_factory.mktemp("reference") / "inline", inline)
    trials = read(folder)["trials"]
    assert trials["status"].tolist() == ["complete"] * TRIALS
    return folder


def ray(workers):
    marks = (pytest.mark.ray, pytest.mark.slow)
    return pytest.param(
        choose_executor("ray", workers=workers, address="local"), {}, id=f"ray-{workers}", marks=marks
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("executor", "options"),
    [
        pytest.param(BackwardsExecutor, {}, id="backwards"),
        pytest.param(inline, {"limit": 7}, id="instalments"),
        ray(1),
        ray(2),
    ],
)
def test_neither_order_nor_bundles_nor_lanes_change_a_row(reference, tmp_path, executor, options):
    assert_same_rows(run(tmp_path / "other", executor, **options), reference)


def files(folder):
    return sum(path.is_file() for path in folder.rglob("*"))


@pytest.mark.slow
def test_a_driver_that_is_killed_again_and_again_ends_with_the_same_rows(reference, tmp_path):
    path = tmp_path / "bits.yaml"
    path.write_text(f"version: 1\n{MATRIX}")
    command = ["run", str(path), "--executor", "inline", "--progress", "none", "--results", str(tmp_path)]
    program = "from harness.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    draw, whole, kills = random.Random(), files(reference), 0
    for share in sorted(draw.uniform(0.1, 0.9) for _ in range(3)):
        driver = subprocess.Popen([sys.executable, "-c", program, *command], env=environment)
        while driver.poll() is None and files(tmp_path) < share * whole:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.05))
        if driver.poll() is None:
            driver.send_signal(signal.SIGKILL)
            kills += 1
        driver.wait()
    last = subprocess.run([sys.executable, "-c", program, *command], env=environment, check=False)

    assert kills
    assert last.returncode == 0
    assert_same_rows(tmp_path / "bits", reference)
