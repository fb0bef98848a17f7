"""`bench plan`: what would run, what is done, what means nothing, how long it takes; no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.output import console, duration, emit_json, json_option, size, table
from harness.cli.selection import Selection, selection_options
from harness.cli.stored import past_wall_s, statuses

if TYPE_CHECKING:
    from harness.plan.estimate import Estimate
    from harness.plan.planner import Plan, PlannedTrial

STATUS_WORDS = {
    "todo": "to run",
    "failed": "failed, to be tried again",
    "complete": "complete",
    "not_applicable": "not applicable",
}


@click.command("plan", short_help="Show what would run, why not, and how long it takes.")
@click.argument("file")
@selection_options
@click.option("--smoke", is_flag=True, help="Plan what `bench run --smoke` would run.")
@click.option("--expand", is_flag=True, help="List every trial; with --json one resolved spec per line.")
@json_option
def command(file: str, selection: Selection, smoke: bool, expand: bool, as_json: bool) -> None:
    """Show what `bench run` would do with a matrix, without doing it; neither torch nor data is loaded.

    \b
    Examples:
      bench plan configs/quickstart.yaml
      bench plan matrix.yaml --only attack=dlg --seeds 0
      bench plan matrix.yaml --expand                       every trial by name
      bench plan matrix.yaml --expand --json | head -1      one trial, every option resolved
    """
    from harness.config.matrix import load_matrix
    from harness.config.smoke import smoke as reduced
    from harness.plan.planner import make_plan

    matrix = reduced(load_matrix(file)) if smoke else load_matrix(file)
    folder = Path(selection.results, matrix.name)
    plan = make_plan(
        matrix,
        statuses(folder),
        only=selection.only,
        skip=selection.skip,
        seeds=selection.seeds,
        limit=selection.limit,
        past_wall_s=past_wall_s(folder),
    )
    if expand:
        for trial in plan.trials:
            click.echo(json.dumps(_trial_facts(trial)) if as_json else _trial_line(trial))
    elif as_json:
        emit_json(_facts(plan))
    else:
        _print(plan, folder)


def _facts(plan: Plan) -> dict[str, Any]:
    estimate = plan.estimate
    return {
        "name": plan.matrix.name,
        "trials": {"total": len(plan.trials) + plan.held_back, **plan.counts(), "held_back": plan.held_back},
        "not_applicable": [{"reason": reason, "trials": n} for reason, n in plan.reasons().items()],
        "stages": [stage._asdict() for stage in plan.stages],
        "estimate": {
            "trial_seconds": round(estimate.trial_seconds, 3),
            "federation_seconds": round(estimate.federation_seconds, 3),
            "stage_seconds": round(estimate.stage_seconds, 3),
            "unknown_stages": dict(estimate.unknown_stages),
            "disk_bytes": round(estimate.disk_bytes),
            "basis": estimate.basis,
        },
    }


def _trial_facts(trial: PlannedTrial) -> dict[str, Any]:
    return {
        "trial_id": trial.trial_id,
        "name": trial.name,
        "status": trial.status,
        "reason": trial.reason,
        "spec": json.loads(trial.spec.canonical),
    }


def _trial_line(trial: PlannedTrial) -> str:
    why = f"  ({trial.reason})" if trial.reason else ""
    return f"{trial.trial_id}  {trial.status:<14}  {trial.name}{why}"


def _print(plan: Plan, folder: Path) -> None:
    out = console()
    out.print(
        f"[bold]{plan.matrix.name}[/bold]: {len(plan.trials) + plan.held_back:,} trials, results in {folder}"
    )
    rows = [(f"{n:,}", STATUS_WORDS[status]) for status, n in plan.counts().items() if n]
    if plan.held_back:
        rows.append((f"{plan.held_back:,}", "held back by --limit"))
    out.print(table(("trials", "status"), rows, numbers=("trials",)))
    if reasons := plan.reasons():
        out.print()
        rows = [(f"{n:,}", reason) for reason, n in reasons.items()]
        out.print(table(("trials", "not applicable because"), rows, numbers=("trials",)))
    if plan.stages:
        out.print()
        shared = [(stage.kind, f"{stage.distinct:,}", f"{stage.trials:,}") for stage in plan.stages]
        out.print(
            table(("shared stage", "made", "used by trials"), shared, numbers=("made", "used by trials"))
        )
    out.print(f"\n{_words(plan.estimate)}", markup=False)


def _words(estimate: Estimate) -> str:
    parts = {
        "attacks": estimate.trial_seconds,
        "training": estimate.federation_seconds,
        "other stages": estimate.stage_seconds,
    }
    told = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items() if seconds)
    words = (
        f"About {duration(estimate.seconds)} on one lane ({told or 'nothing to compute'}) and "
        f"{size(estimate.disk_bytes)} of rows and images; {estimate.basis}."
    )
    if estimate.unknown_stages:
        unknown = ", ".join(f"{number:,} {kind}" for kind, number in estimate.unknown_stages.items())
        words += f"\nNot in it, since what they take is not known: {unknown}."
    return words
