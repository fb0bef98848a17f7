"""Trials of a running bundle count as they are solved, and are kept when the run is stopped at once."""

from __future__ import annotations

import signal
import threading

import pytest

from fl.cards import StageRequest
from harness.execute import driver
from harness.execute.stage_progress import StageProgress, percent_done
from harness.store.artifacts import ArtifactStore

pytestmark = pytest.mark.usefixtures("moody")

TRIALS, BUNDLE = 16, 4
MATRIX = f"matrix: {{attack: [{{name: moody, shade: {{grid: {[n / TRIALS for n in range(TRIALS)]}}}}}]}}"


@pytest.fixture(autouse=True)
def _look_always(monkeypatch):
    monkeypatch.setattr(driver, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(driver, "LOOK_SHARE", 1e9)


def test_what_is_solved_counts_before_its_bundle_is_done(run, listener):
    assert run(MATRIX).complete == TRIALS
    heard = listener.events["progress"]
    reached = [progress.done + progress.solved for progress in heard]

    assert {progress.solved for progress in heard if not progress.done} == set(range(BUNDLE + 1))
    assert reached == sorted(reached)
    assert (heard[-1].done, heard[-1].solved) == (TRIALS, 0)


def test_what_waits_for_its_federation_counts_too(run, listener, monkeypatch):
    """The bundle, of round 0, is taken first; the federation trains after it."""
    monkeypatch.setattr("harness.execute.schedule.Schedule.ready", bundles_first)
    assert run(MATRIX).complete == TRIALS
    *before, last = listener.events["progress"]

    assert {progress.done for progress in before} == {0}
    assert max(progress.solved for progress in before) == TRIALS
    assert (last.done, last.solved) == (TRIALS, 0)


def bundles_first(self, accept):
    """Take the last item that is ready."""
    for item_id in self._queue[::-1]:
        if self._waits[item_id] <= self._done and accept(self._items[item_id]):
            self._queue.remove(item_id)
            return self._items[item_id]
    return None


def test_a_stage_tells_how_far_it_is_and_leaves_nothing_behind(run, listener, tmp_path):
    prior = "{width: 2, latent: 4, steps: 10, batch_size: 4}"
    attack = f"{{name: gias, prior: {prior}, restarts: 1, latent_iterations: 1, parameter_iterations: 0}}"
    matrix = f"matrix: {{data: [{{name: digits, size: 16}}], attack: [{attack}]}}"
    assert run(matrix).complete == 1
    running = [text for progress in listener.events["progress"] for text in progress.running]

    percents = [text.rpartition(", ")[2] for text in running if text.endswith("%")]
    assert percents == [f"{10 * tenth} %" for tenth in range(1, 11)]
    assert not list(tmp_path.rglob("*-progress*"))


def test_stopping_at_once_keeps_what_the_bundle_has_solved(run, trials, listener):
    class Impatient(type(listener)):
        def progress(self, progress):
            if progress.solved == 2:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    result = run(MATRIX, watch=Impatient())

    assert (result.killed, result.complete, result.remaining) == (True, 2, TRIALS - 2)
    assert set(trials()["status"]) == {"complete"}
    assert run(MATRIX).complete == TRIALS - 2


def test_a_store_that_is_slow_is_not_asked_all_the_time(run, listener, monkeypatch):
    monkeypatch.setattr(driver, "LOOK_EVERY_S", 3600.0)
    assert run(MATRIX).complete == TRIALS
    assert not any(progress.solved for progress in listener.events["progress"])


def test_looking_at_a_stage_that_ends_meanwhile_is_no_error(tmp_path):
    store, request = ArtifactStore(tmp_path), StageRequest("prior", "prior", "m:f", 1, {})
    looked = threading.Event()

    def stages():
        for _ in range(100):
            progress = StageProgress(store, request, lambda: None)
            progress(0.5, "half")
            looked.clear()
            looked.wait()
            progress.ended()

    lane, seen = threading.Thread(target=stages, daemon=True), {percent_done(store, request)}
    lane.start()
    while lane.is_alive():
        seen.add(percent_done(store, request))
        looked.set()
    lane.join()
    assert seen == {0, 50}
    assert percent_done(store, request) == 0
