"""The stopwatch and the shares of the overhead benchmark, by hand and on a real matrix in small."""

from __future__ import annotations

import math
import time

import pytest

from benchmarks import overhead
from benchmarks.report import replace_marked
from benchmarks.sections import Sections, Spent, since_process_start
from harness.execute import score
from harness.metrics.pairs import Unavailable


class Clock:
    """Time that passes when it is told to; CPU time at half the pace."""

    now = 0.0

    def __call__(self):
        return Spent(self.now / 2, self.now)


class Worker:
    def __init__(self, clock):
        self._clock = clock

    def work(self, seconds):
        self._clock.now += seconds
        return seconds

    def steps(self, *seconds):
        for one in seconds:
            self._clock.now += one
            yield one


@pytest.fixture(name="clock")
def clock_fixture():
    return Clock()


@pytest.fixture(name="sections")
def sections_fixture(clock):
    return Sections("rest", clock=clock)


def test_each_moment_counts_for_the_innermost_section(clock, sections):
    clock.now = 1.0
    with sections.within("outer"):
        clock.now = 3.0
        with sections.within("inner"):
            clock.now = 10.0
        clock.now = 11.0
    clock.now = 15.0

    assert sections.spent == {"rest": (2.5, 5.0), "outer": (1.5, 3.0), "inner": (3.5, 7.0)}


def test_a_section_ends_with_an_error(clock, sections):
    def fail():
        clock.now = 2.0
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), sections.within("outer"):
        fail()
    clock.now = 3.0

    assert sections.spent["rest"].wall_s == 1.0


def test_calls_are_timed_and_functions_given_back(clock, sections):
    before, worker = Worker.work, Worker(clock)
    with sections.timing(Worker, "work", "work"):
        assert worker.work(4.0) == 4.0
    assert Worker.work is before
    worker.work(2.0)

    assert sections.spent["work"].wall_s == 4.0
    assert sections.spent["rest"].wall_s == 2.0


def test_what_a_generators_reader_does_is_not_the_generators(clock, sections):
    with sections.timing(Worker, "steps", "steps"):
        for _ in Worker(clock).steps(1.0, 2.0):
            clock.now += 10.0

    assert sections.spent["steps"].wall_s == 3.0
    assert sections.spent["rest"].wall_s == 20.0


def test_a_process_has_taken_time_before_it_looks():
    spent = since_process_start()
    assert 0 < spent.cpu_s <= time.process_time()
    assert math.isnan(spent.wall_s) or spent.wall_s > 0


def test_memory_grows_per_hundred_trials_once_it_is_warm():
    warming = [100.0, 300.0]
    assert overhead.growth([*warming, *(500 + 0.02 * n for n in range(6))]) == pytest.approx(2.0)
    assert math.isnan(overhead.growth([1.0]))


def test_the_share_leaves_out_start_and_solving():
    spent = {"start": Spent(9.0), "solving": Spent(40.0), "scoring": Spent(1.0), "storing": Spent(3.0)}
    assert overhead.overhead(spent) == pytest.approx(0.1)
    assert overhead.overhead(spent, "storing") == pytest.approx(0.075)


def test_a_matrix_is_measured_section_by_section(monkeypatch):
    monkeypatch.setattr(score, "_perceptual", lambda: Unavailable("LPIPS is left out of these tests"))
    profile, result = overhead.measure(overhead.MANY.format(rounds=1))
    at_the_end = profile.spent["the rest"].wall_s
    measured = overhead.frame(profile, profile, Spent(1.0, 2.0)).set_index("section")

    assert profile.sections.spent["the rest"].wall_s > at_the_end  # the stopwatch goes on,
    assert measured.loc["the rest", "wall_s"] == at_the_end  # but what follows the run is no part of it
    assert (result.complete, result.failed) == (12, 0)
    assert set(measured["trials"]) == {12}
    assert list(measured.index) == list(overhead.SECTIONS)
    assert (measured["cpu_s"] > 0).all()
    assert measured.loc["start", "cpu_s"] > 1.0
    document = replace_marked(
        "<!-- begin overhead -->\nold\n<!-- end overhead -->\n",
        "overhead",
        overhead.table(measured.reset_index()),
    )
    assert "old" not in document
    assert "| scoring |" in document
