"""How a run ends before its end: limits, failures, Ctrl-C and a second driver; and its exit code."""

from __future__ import annotations

import signal

import pytest

from fl.errors import LockHeldError
from harness.execute.events import RunResult

pytestmark = pytest.mark.usefixtures("moody")

SMALL = "matrix: {attack: [moody, random_guess]}"
SEEDS = "seeds: [1, 2, 3]\nmatrix: {attack: [moody]}"


def test_too_many_failures_stop_a_run(run, monkeypatch):
    monkeypatch.setenv("MOODY_FAILS", "1234567")
    result = run("seeds: [1, 2, 3, 4, 5, 6, 7]\nmatrix: {attack: [moody]}", max_failures=2)

    assert result.failed == 3
    assert result.remaining == 4
    assert result.exit_code == 1


def test_a_limit_leaves_the_rest_for_later(run, trials):
    first = run(SEEDS, limit=2)
    assert (first.complete, first.remaining, first.exit_code) == (2, 1, 3)
    second = run(SEEDS, limit=2)
    assert (second.complete, second.remaining, second.exit_code) == (1, 0, 0)
    assert len(trials()) == 3


def test_a_second_driver_is_refused_while_one_runs(run, trials, listener):
    refused = []

    class Intruder(type(listener)):
        def trial(self, done):
            with pytest.raises(LockHeldError, match="in use by process") as error:
                run(SEEDS, watch=listener)
            refused.append(error.value.exit_code)

    result = run(SEEDS, watch=Intruder())

    assert refused == [2, 2, 2]
    assert (result.complete, result.exit_code) == (3, 0)
    assert len(trials()) == 3
    assert run(SEEDS).exit_code == 0  # the lock was given back


def interrupting(listener, times):
    """A listener at whose first finished trial the user presses Ctrl-C so many times."""

    class Impatient(type(listener)):
        def trial(self, done):
            super().trial(done)
            if len(self.events["trial"]) == 1:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)

    return Impatient()


def test_one_interrupt_stores_what_runs_and_stops(run, trials, listener):
    watch = interrupting(listener, 1)
    result = run(SEEDS, watch=watch)

    assert (result.complete, result.remaining, result.exit_code) == (1, 2, 3)
    assert result.interrupted
    assert any("stopping" in text for text in watch.events["message"])
    assert len(trials()) == 1
    assert run(SEEDS).complete == 2


def test_two_interrupts_stop_at_once_and_harm_nothing(run, trials, listener):
    result = run(SEEDS, watch=interrupting(listener, 2))
    assert (result.killed, result.exit_code) == (True, 130)
    again = run(SEEDS)

    assert again.exit_code == 0
    assert sorted(trials()["seed"]) == [1, 2, 3]
    assert set(trials()["status"]) == {"complete"}


def test_the_handlers_of_signals_are_given_back(run):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(SMALL)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        ({}, 0),
        ({"remaining": 1}, 3),
        ({"failed": 1}, 1),
        ({"failed": 1, "remaining": 1}, 1),
        ({"remaining": 1, "interrupted": True}, 3),
        ({"interrupted": True}, 0),
        ({"failed": 1, "killed": True}, 130),
    ],
)
def test_exit_codes(ended, code):
    end = {"complete": 1, "failed": 0, "not_applicable": 0, "remaining": 0, "interrupted": False}
    result = RunResult(**{**end, "killed": False, "wall_s": 1.0, **ended})
    assert result.exit_code == code
