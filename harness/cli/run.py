"""`bench run`: what a matrix still needs, from the lock to the summary."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from harness.cli.output import console, emit_json, json_option
from harness.cli.selection import Selection, selection_options
from harness.cli.stored import statuses

if TYPE_CHECKING:
    from harness.cli.display import ProgressStyle
    from harness.cli.remaining import Kind
    from harness.execute.executor import DeviceChoice
    from harness.execute.session import RunRequest


@click.command("run", short_help="Run a matrix; again: only what is missing, new or failed.")
@click.argument("file")
@selection_options
@click.option("--smoke", is_flag=True, help="One seed, one round, two targets, ten iterations of every cell.")
@click.option(
    "--executor",
    type=click.Choice(["ray", "inline"]),
    default="ray",
    show_default=True,
    help="ray: all cores, or a cluster; inline: this process, without ray. Results are the same.",
)
@click.option("--address", help="Ray: the cluster to join, e.g. auto; by default Ray starts on this machine.")
@click.option("--workers", type=click.IntRange(min=1), help="Ray: how many lanes; by default one per core.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="auto: a GPU where there is one; cuda: an error where there is none.",
)
@click.option("--keep-failed", is_flag=True, help="Leave failed trials as they are; they do not count.")
@click.option("--max-failures", type=click.IntRange(min=0), help="Stop once more trials than this failed.")
@click.option(
    "--progress",
    type=click.Choice(["rich", "plain", "none"]),
    help="By default rich on a terminal, plain elsewhere and where CI or NO_COLOR is set.",
)
@click.option("-v", "--verbose", count=True, help="Log what happens to stderr; -vv: in detail.")
@json_option
def command(
    *,
    file: str,
    selection: Selection,
    smoke: bool,
    executor: str,
    address: str | None,
    workers: int | None,
    device: str,
    keep_failed: bool,
    max_failures: int | None,
    progress: str | None,
    verbose: int,
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
    from harness.cli.display import display, style_for
    from harness.config.matrix import load_matrix
    from harness.execute.session import RunRequest, choose_executor, run_matrix

    log_to_stderr(verbose)
    matrix = load_matrix(file)
    if smoke:
        from harness.config.smoke import smoke as reduced

        matrix = reduced(matrix)
    request = RunRequest(
        matrix=matrix,
        results=Path(selection.results),
        executor=choose_executor(executor, workers=workers, address=address),
        device=cast("DeviceChoice", device),
        only=selection.only,
        skip=selection.skip,
        seeds=selection.seeds,
        limit=selection.limit,
        keep_failed=keep_failed,
        max_failures=max_failures,
    )
    screen = console(stderr=True)
    style = cast("ProgressStyle", progress) if progress else style_for(screen)
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


def log_to_stderr(verbose: int) -> None:
    """Log to stderr: nothing, what happens (1), or that in detail (2)."""
    if verbose:
        level = logging.INFO if verbose == 1 else logging.DEBUG
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
