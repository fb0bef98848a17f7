"""`bench score`: metrics of reconstructions that are stored already."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from harness.cli.output import emit_json, json_option


@click.command("score", short_help="Fill in metrics that came later, without attacking again.")
@click.argument("experiment", type=click.Path(path_type=Path))
@click.option(
    "--all", "every", is_flag=True, help="Score every complete trial anew, also where nothing is missing."
)
@json_option
def command(*, experiment: Path, every: bool, as_json: bool) -> int:
    """Score the stored reconstructions of an experiment again, where something is missing.

    That is: a metric that was installed later, or rows from an earlier version of the scoring. What was
    reconstructed is kept as it was made, so the numbers are those of a new run. A metric that is null for a
    reason is left alone; with --all it is tried again, such as lpips once its weights are there. Needs the
    experiment's stored artifacts and checkpoints, and its data; nothing is trained or attacked.

    \b
    Examples:
      bench score results/quickstart
      bench weights fetch lpips-alexnet && bench score results/quickstart --all

    Exit codes: 0 done; 1 a trial could not be scored, or an error; 2 usage.
    """
    from harness.execute.rescore import rescore

    def progress(done: int, total: int) -> None:
        click.echo(f"{done:,} of {total:,} trials", err=True)

    result = rescore(experiment, every=every, progress=progress)
    code = 1 if result.failed else 0
    if as_json:
        emit_json({**asdict(result), "failed": dict(result.failed), "exit_code": code})
        return code
    click.echo(
        f"{result.complete:,} complete trials; {result.lacking:,} to score, {result.changed:,} have new rows"
    )
    for reason, count in result.failed.most_common():
        click.echo(f"not scored, {count:,} x: {reason}")
    return code
