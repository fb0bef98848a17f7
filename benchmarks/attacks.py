"""`python -m benchmarks.attacks`: CPU seconds per finished trial of gradient matching, ours and a peer's."""

from __future__ import annotations

from pathlib import Path

import click

from attacks.engine.table import chosen_by_user, use
from benchmarks.cases import CASES
from benchmarks.measure import BLOCKS, measure
from benchmarks.report import frames, render, write
from benchmarks.solvers import peers
from fl.errors import BenchError
from harness.execute.lane import single_thread

NAMES = [case.name for case in CASES]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Rows to measure; all by default.")
@click.option("--quick", is_flag=True, help="Four trials at most, a tenth of the iterations: minutes.")
@click.option("--trials", type=click.IntRange(min=1), help="Trials of every row.")
@click.option("--iterations", type=click.IntRange(min=1), help="Iterations of every row.")
@click.option(
    "--blocks", type=click.IntRange(min=1), default=BLOCKS, show_default=True, help="Pairs per batch."
)
@click.option(
    "--peer",
    type=click.Choice(["fastest", "loop", "breaching"]),
    default="fastest",
    show_default=True,
    help="fastest: of those installed, in this run.",
)
@click.option(
    "--results", default="results/benchmarks", show_default=True, help="Folder of the Parquet files."
)
@click.option("--document", help="Markdown file whose tables are replaced; none by default.")
def main(
    *,
    only: tuple[str, ...],
    quick: bool,
    trials: int | None,
    iterations: int | None,
    blocks: int,
    peer: str,
    results: str,
    document: str | None,
) -> None:
    """Measure our solver and the fastest peer in turn, in one process with one thread.

    \b
    Examples:
      python -m benchmarks.attacks --quick
      python -m benchmarks.attacks --only lenet --trials 64 --peer loop
      python -m benchmarks.attacks --document docs/benchmarks.md      (make bench; about an hour)
    """
    single_thread()
    found = peers()
    if peer != "fastest":
        if peer not in found:
            raise click.ClickException(f"{peer} is not installed: pip install -e '.[bench-peers]'")
        found = {peer: found[peer]}
    if (table := chosen_by_user()) is not None:
        use(table)
    measured = []
    for case in CASES:
        if only and case.name not in only:
            continue
        scaled = (case.quick() if quick else case).scaled(trials=trials, iterations=iterations)
        measured.append(measure(scaled, peers=found, blocks=blocks))
        row = measured[-1].row()
        click.echo(", ".join(f"{key} {_shown(value)}" for key, value in row.items()))
        write(frames(measured), Path(results))
    if document is not None:
        path, tables = Path(document), frames(measured)
        try:
            path.write_text(render(path.read_text(encoding="utf-8"), tables), encoding="utf-8")
        except (OSError, BenchError) as error:
            raise click.ClickException(f"{document}: {error}") from error


def _shown(value: object) -> object:
    return f"{value:.3g}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
