"""`bench run`: what a matrix still needs, from the lock to the summary."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.execution import Execution, execution_options
from harness.cli.output import console, emit_json, json_option
from harness.cli.selection import Selection, selection_options
from harness.cli.stored import statuses

if TYPE_CHECKING:
    from harness.cli.remaining import Kind
    from harness.execute.session import RunRequest


@click.command("run", short_help="Run a matrix; again: only what is missing, new or failed.")
@click.argument("file")
@selection_options
@click.option("--smoke", is_flag=True, help="One seed, one round, two targets, ten iterations of every cell.")
@click.option("--keep-failed", is_flag=True, help="Leave failed trials as they are; they do not count.")
@execution_options
@json_option
def command(
    *,
    file: str,
    selection: Selection,
    smoke: bool,
    keep_failed: bool,
    execution: Execution,
    as_json: bool,
) -> int:
    """Run the trials of a matrix that have no complete row yet, and store them in DIR/<name>/.

    The same command continues a run that was stopped or killed, retries what failed, and after an edit of the
    matrix runs only what is new. Ctrl-C once finishes and stores what runs; twice stops now.

    \b
    Examples:
      bench run configs/quickstart.yaml
      bench run matrix.yaml --only 'attack=ig*' --skip defense=none --seeds 0,1
      bench run matrix.yaml --limit 10 --executor inline --progress plain
      bench run matrix.yaml --smoke                    every cell once, tiny
      bench run matrix.yaml --address auto             on a Ray cluster
      bench run matrix.yaml --json > run.json          counts for a script

    Exit codes: 0 complete; 1 at least one trial failed, or an error; 2 usage or configuration;
    3 stopped before the end with none failed; 130 stopped at once by a second Ctrl-C.
    """
    from harness.cli.display import display
    from harness.config.matrix import load_matrix
    from harness.execute.session import RunRequest, run_matrix

    matrix = load_matrix(file)
    if smoke:
        from harness.config.smoke import smoke as reduced

        matrix = reduced(matrix)
    request = RunRequest(
        matrix=matrix,
        results=Path(selection.results),
        executor=execution.choose(),
        device=execution.device,
        only=selection.only,
        skip=selection.skip,
        seeds=selection.seeds,
        limit=selection.limit,
        keep_failed=keep_failed,
        max_failures=execution.max_failures,
    )
    screen = console(stderr=True)
    style = execution.style(screen)
    kinds = Counter() if style == "none" else _kinds(request)
    result = run_matrix(request, display(style, screen, kinds))
    folder = request.results / matrix.name
    if as_json:
        emit_json({"experiment": str(folder), **asdict(result), "exit_code": result.exit_code})
    else:
        _conclude(folder)
    return result.exit_code


def _kinds(request: RunRequest) -> Counter[Kind]:
    """Count the trials to run by what their time mostly depends on, for estimating the time left."""
    from harness.cli.remaining import kind_of
    from harness.plan.planner import make_plan

    stored = statuses(request.results / request.matrix.name)
    kept = {
        trial: "complete" for trial, status in stored.items() if request.keep_failed and status == "failed"
    }
    plan = make_plan(
        request.matrix,
        {**stored, **kept},
        only=request.only,
        skip=request.skip,
        seeds=request.seeds,
        limit=request.limit,
    )
    return Counter(kind_of(trial.spec) for trial in plan.todo)


def _conclude(folder: Path) -> None:
    """Show what leaked, and say where the rest is."""
    from harness.cli.results import print_summary

    print_summary(str(folder))
    click.echo(f"\nResults: {folder}  (pandas.read_parquet('{folder}/trials'), or `bench show {folder}`)")
