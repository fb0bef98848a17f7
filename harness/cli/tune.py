"""`bench tune`: search defenses for the least leakage at the least cost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.execution import Execution, execution_options
from harness.cli.output import console, duration, emit_json, json_option, table

if TYPE_CHECKING:
    from harness.tune.document import Tuning
    from harness.tune.events import TuneResult
    from harness.tune.summary import Summary


@click.command("tune", short_help="Tune defenses: the least leakage for the accuracy it costs.")
@click.argument("file")
@click.option(
    "--results",
    default="results",
    show_default=True,
    metavar="DIR",
    help="Folder of all experiments; the study's is DIR/<name>.",
)
@click.option(
    "--trials", type=click.IntRange(min=1), metavar="N", help="Optuna trials, instead of the file's."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Run at most N trials of the harness.")
@click.option("--check", is_flag=True, help="Check the file and show what would run, without running it.")
@click.option("--keep-failed", is_flag=True, help="Do not try again what failed.")
@execution_options
@json_option
def command(
    *,
    file: str,
    results: str,
    trials: int | None,
    limit: int | None,
    check: bool,
    keep_failed: bool,
    execution: Execution,
    as_json: bool,
) -> int:
    """Run the Optuna trials that a study still needs, judge its front, and show what was found.

    Every Optuna trial is a defense with parameters; it is evaluated by ordinary trials, stored in
    DIR/<name>/ beside Optuna's own journal. The same command continues a study that was stopped or killed;
    --trials extends one that is finished. Ctrl-C once finishes and stores what runs; twice stops now.

    \b
    Examples:
      bench tune configs/tune/shadowdef_small.yaml
      bench tune study.yaml --check                    what would run
      bench tune study.yaml --trials 100               go on until there are 100
      bench compare results/study --accuracy-drop 0.02

    Exit codes: 0 complete; 1 at least one trial failed, or an error; 2 usage or configuration;
    3 stopped before the end with none failed; 130 stopped at once by a second Ctrl-C.
    """
    from harness.tune.document import load_tuning

    tuning = load_tuning(file)
    wanted = trials or tuning.study.trials
    if check:
        return _check(tuning, wanted, as_json=as_json)
    from harness.cli.tuning_display import TuningDisplay
    from harness.tune.session import TuneRequest, run_tuning
    from harness.tune.summary import summarise

    request = TuneRequest(
        tuning=tuning,
        results=Path(results),
        executor=execution.choose(),
        device=execution.device,
        trials=trials,
        limit=limit,
        keep_failed=keep_failed,
        max_failures=execution.max_failures,
    )
    screen = console(stderr=True)
    result, tuner = run_tuning(request, TuningDisplay(screen, execution.style(screen), wanted))
    _conclude(request.results / tuning.name, result, summarise(tuner, result.told), as_json=as_json)
    return result.exit_code


def _conclude(folder: Path, result: TuneResult, summary: Summary, *, as_json: bool) -> None:
    """Show what was found, and say where the rest is."""
    if as_json:
        from harness.cli.compare import plain

        run = asdict(result.run)
        emit_json({"study": str(folder), "run": run, **plain(summary), "exit_code": result.exit_code})
        return
    from harness.cli.tuning_display import print_summary

    print_summary(console(), summary)
    click.echo(f"\nResults: {folder}  (`bench compare {folder}`; Optuna's journal: {folder}/journal.log)")


def _check(tuning: Tuning, optuna_trials: int, *, as_json: bool) -> int:
    facts = _facts(tuning, optuna_trials)
    if as_json:
        emit_json(facts)
        return 0
    out = console()
    out.print(
        f"[bold]{tuning.name}[/bold]: {optuna_trials:,} Optuna trials, {tuning.study.parallel} in flight"
    )
    rows = [(label, name) for label, names in facts["space"].items() for name in names or ["fixed"]]
    out.print(table(("defense", "searched"), rows))
    for reason in facts["not_applicable"]:
        out.print(f"not applicable: {reason['reason']} ({reason['trials']} per Optuna trial)", markup=False)
    out.print(
        f"at most {facts['trials']:,} trials, about {duration(facts['seconds'])} on one lane; then the judge",
        markup=False,
    )
    return 0


def _facts(tuning: Tuning, optuna_trials: int) -> dict[str, Any]:
    """Return what a study would do; the planner decides what applies, as it does for a matrix."""
    from harness.tune.session import trials_at_most

    each = once = 0.0
    reasons = dict[str, int]()
    for branch in tuning.space.branches.values():
        plan = tuning.plan(next(branch.corners()), tuning.tuning, {})
        anew = plan.estimate.trained_stage_seconds
        each = max(each, plan.estimate.trial_seconds + plan.estimate.federation_seconds + anew)
        once = max(once, plan.estimate.stage_seconds - anew)
        reasons |= plan.reasons()
    return {
        "name": tuning.name,
        "objectives": dict(tuning.study.objectives),
        "optuna_trials": optuna_trials,
        "trials": trials_at_most(tuning, optuna_trials),
        "seconds": each * optuna_trials + once,
        "not_applicable": [{"reason": reason, "trials": count} for reason, count in reasons.items()],
        "space": {label: [p.name for p in b.parameters] for label, b in tuning.space.branches.items()},
    }
