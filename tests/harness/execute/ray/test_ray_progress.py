"""On Ray, too, a bundle's trials count as they are solved, and are kept when the run is stopped at once."""

from __future__ import annotations

import signal

import pandas as pd
import pytest

from harness.config.matrix import load_matrix
from harness.execute import driver
from harness.execute.session import RunRequest, run_matrix

pytestmark = pytest.mark.ray

SHORT, LONG = 2, 20_000
MATRIX = f"matrix: {{attack: [{{name: inverting_gradients, iterations: {{grid: [{SHORT}, {LONG}]}}}}]}}"


@pytest.mark.usefixtures("private_ray")
def test_the_short_trial_of_a_bundle_survives_a_stop_during_the_long_one(
    write_matrix, tmp_path, monkeypatch, listener
):
    from harness.execute.ray_executor import RayExecutor

    monkeypatch.setattr(driver, "LOOK_EVERY_S", 0.05)

    class Impatient(type(listener)):
        def progress(self, progress):
            if progress.solved:
                assert progress.running
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    request = RunRequest(
        load_matrix(write_matrix(MATRIX)),
        tmp_path / "results",
        lambda settings: RayExecutor(settings, lane_class="ray_real_lanes:LaneWithoutLpips"),
        device="cpu",
    )
    result = run_matrix(request, Impatient())
    rows = pd.read_parquet(tmp_path / "results" / "small" / "trials")

    assert (result.killed, result.complete, result.remaining) == (True, 1, 1)
    assert rows["gradient_evaluations"].tolist() == [2 * (SHORT + 1)]  # of two targets
