"""What a run shows while it goes on: leakage so far, time left, plain lines and the live panel."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console

from harness.cli.display import LiveDisplay, NoDisplay, PlainDisplay, display, ending, style_for
from harness.cli.leakage import Group, Tally, leakage_table
from harness.cli.remaining import Kind, Remaining
from harness.execute.events import Progress, RunResult, TrialDone

DLG, FLOOR = Kind("digits", "dlg", 99), Kind("digits", "random_guess", 0)


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def done(attack="dlg", *, psnr_db=30.0, success_rate=1.0, wall_s=4.0, status="complete", **values):
    known = {
        "trial_id": "a" * 20,
        "dataset": "digits",
        "defense": "none",
        "noise_budget": 0.0,
        "seed": 0,
        "error": None,
    }
    row = {**known, **values, "attack": attack, "status": status, "wall_s": wall_s}
    return TrialDone.of({**row, "psnr_db_median": psnr_db, "success_rate": success_rate})


def progress(complete=1, failed=0, total=4, **values):
    return Progress(complete, failed, total, running=("dlg on none (2 trials)",), items_left=3, **values)


def result(**values):
    known = {
        "complete": 3,
        "failed": 0,
        "not_applicable": 0,
        "remaining": 0,
        "interrupted": False,
        "killed": False,
        "wall_s": 61.0,
    }
    return RunResult(**{**known, **values})


def written(width=120, *, terminal=False):
    stream = io.StringIO()
    return stream, Console(
        file=stream, width=width, force_terminal=terminal, no_color=True, highlight=False, _environ={}
    )


class TestTally:
    def test_it_takes_medians_and_keeps_floors_apart(self):
        tally = Tally()
        for psnr_db, success_rate in ((10.0, 0.0), (30.0, 1.0), (40.0, 0.5)):
            tally.add(done(psnr_db=psnr_db, success_rate=success_rate))
        for attack, psnr_db in (("random_guess", 6.0), ("mean_image", 12.0), ("mean_image", 14.0)):
            tally.add(done(attack, psnr_db=psnr_db, success_rate=0.0))
        tally.add(done(defense="gaussian", noise_budget=0.1, psnr_db=None, success_rate=None))
        tally.add(done(status="failed", psnr_db=None, success_rate=None))
        noisy, plain = tally.rows()
        assert plain == (Group("digits", "none", 0.0), 3, 30.0, 0.5, 13.0, None, None)
        assert noisy == (Group("digits", "gaussian", 0.1), 1, None, None, None, None, None)

    def test_models_are_told_by_attack_accuracy(self):
        tally = Tally()
        for attack, attack_top1 in (
            ("gmi", 0.5),
            ("gmi", 0.75),
            ("random_prior", 0.125),
            ("random_prior", 0.25),
        ):
            tally.add(done(attack, psnr_db=None, success_rate=None, attack_top1=attack_top1))
        (row,) = tally.rows()
        assert row == (Group("digits", "none", 0.0), 2, None, None, None, 0.625, 0.1875)
        stream, console = written()
        console.print(leakage_table([row]))
        assert "attack top-1" in stream.getvalue()
        assert "PSNR" not in stream.getvalue()
        assert "0.62" in stream.getvalue()


class TestRemaining:
    def test_nothing_is_known_before_a_trial_is_done(self):
        assert Remaining(Counter({DLG: 4})).eta_s is None

    def test_attacks_cost_what_their_kind_took_and_all_else_what_trials_needed(self):
        clock = Clock()
        remaining = Remaining(Counter({DLG: 4, FLOOR: 2}), clock=clock)
        remaining.begin(lanes=2)
        clock.now = 7.0
        remaining.finish(done(wall_s=8.0))
        remaining.finish(done("random_guess", wall_s=2.0))
        # left: 3 x 8 s and 1 x 2 s of attacks; of two lanes' 14 s, 10 s were attacks, so 2 s a trial were not
        assert remaining.eta_s == pytest.approx((3 * 8.0 + 2.0 + 4 * 2.0) / 2)

    def test_kinds_not_seen_yet_are_guessed_from_their_evaluations(self):
        clock = Clock()
        remaining = Remaining(Counter({DLG: 2, FLOOR: 2}), clock=clock)
        clock.now = 0.5
        remaining.finish(done("random_guess", wall_s=0.5))
        # a floor counts as 1 evaluation and takes 0.5 s, so dlg's 100 take 50 s; left: 1 and 2 of them
        assert remaining.eta_s == pytest.approx(0.5 + 2 * 50.0)

    def test_what_was_stored_before_says_nothing_about_this_runs_speed(self):
        clock = Clock()
        remaining = Remaining(Counter({DLG: 3}), clock=clock)
        remaining.finish(done(wall_s=8.0))
        clock.now = 1.0
        remaining.begin(lanes=1)
        assert remaining.eta_s is None
        clock.now = 13.0
        remaining.finish(done(wall_s=8.0))
        assert remaining.eta_s == pytest.approx(8.0 + 4.0)

    def test_solved_trials_tell_the_time_before_any_is_done(self):
        clock = Clock()
        remaining = Remaining(Counter({DLG: 8}), clock=clock)
        remaining.begin(lanes=2)
        clock.now = 6.0
        remaining.solve(3)
        assert remaining.eta_s == pytest.approx(10.0)  # 2 s each, as they come

    def test_solved_trials_are_not_left(self):
        clock = Clock()
        remaining = Remaining(Counter({DLG: 8}), clock=clock)
        remaining.finish(done(wall_s=4.0))
        clock.now = 15.0
        remaining.solve(2)
        # 7 left, of which 2 are solved; 12 of the 15 s were attacks, so a trial takes 1 s beside its 4
        assert remaining.eta_s == pytest.approx(5 * (4.0 + 1.0))

    def test_a_failure_tells_nothing_of_time(self):
        remaining = Remaining(Counter({DLG: 3}))
        remaining.finish(done(status="failed", wall_s=None))
        assert remaining.eta_s is None


class TestPlainLines:
    def test_a_line_now_and_then_every_failure_and_the_end(self):
        clock = Clock()
        stream, console = written()
        plain = PlainDisplay(console, Remaining(Counter({DLG: 4}), clock=clock), clock=clock)
        plain.started(4, 2, "2 lanes")
        plain.progress(progress(complete=0))
        clock.now = 10.0
        plain.trial(done())
        plain.progress(progress())
        assert stream.getvalue().splitlines() == ["4 trials on 2 lanes"]
        clock.now = 20.0
        plain.progress(progress(retried=2))
        assert stream.getvalue().splitlines()[1] == "1 of 4 trials | 2 retried | 20 s | about 1 min 00 s left"
        plain.trial(done(status="failed", error="[x] broke", defense="pruning", noise_budget=0.5))
        plain.message("stopping")
        plain.finished(result(failed=1, remaining=1))
        assert stream.getvalue().splitlines()[2:] == [
            f"failed: dlg against pruning 0.5 on digits, seed 0 ({'a' * 20}): [x] broke",
            "stopping",
            "stopped after 1 min 01 s: 3 complete, 1 failed, 1 left to run",
        ]


class TestLivePanel:
    def test_it_shows_progress_failures_and_leakage_per_defense(self):
        stream, console = written(terminal=True)
        live = LiveDisplay(console, Remaining(Counter({DLG: 4})))
        live.started(4, 2, "2 lanes on this machine")
        live.progress(progress(failed=1))
        live.trial(done(psnr_db=31.5, success_rate=0.75))
        live.trial(done("mean_image", psnr_db=12.25, success_rate=0.0))
        live.trial(done(status="failed", error="out of [memory]"))
        live.message("a lane was lost")
        with console.capture() as capture:
            console.print(live)
        panel = capture.get()
        for text in (
            "2 of 4 trials",
            "1 failed",
            "dlg on none (2 trials)",
            "a lane was lost",
            "out of [memory]",
        ):
            assert text in panel
        where = next(line for line in panel.splitlines() if "2 lanes on this machine" in line)
        assert "running 1, waiting 3" in where
        assert "━" not in where
        row = next(line for line in panel.splitlines() if line.startswith("digits"))
        assert row.split() == ["digits", "none", "0", "1", "31.5", "0.75", "12.2"]
        live.finished(result())
        assert "finished after 1 min 01 s: 3 complete" in stream.getvalue()


class TestChoice:
    def test_rich_only_where_a_person_watches(self, monkeypatch):
        monkeypatch.delenv("CI", raising=False)
        monkeypatch.delenv("NO_COLOR", raising=False)
        _, terminal = written(terminal=True)
        _, pipe = written()
        assert (style_for(terminal), style_for(pipe)) == ("rich", "plain")
        for variable in ("CI", "NO_COLOR"):
            with monkeypatch.context() as patch:
                patch.setenv(variable, "1")
                assert style_for(terminal) == "plain"

    def test_each_style_has_its_display(self):
        _, console = written()
        made = [display(style, console, Counter()) for style in ("rich", "plain", "none")]
        assert [type(each) for each in made] == [LiveDisplay, PlainDisplay, NoDisplay]

    def test_endings(self):
        assert ending(result()) == "finished after 1 min 01 s: 3 complete"
        killed = result(killed=True, interrupted=True, remaining=2)
        assert ending(killed) == "stopped at once after 1 min 01 s: 3 complete, 2 left to run"
        assert (killed.exit_code, result(failed=1, remaining=2).exit_code, result(remaining=2).exit_code) == (
            130,
            1,
            3,
        )
