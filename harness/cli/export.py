"""`bench export`: an experiment's tables and pictures for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

if TYPE_CHECKING:
    from harness.export import Form


@click.command("export", short_help="Write an experiment's tables as CSV, or as Parquet in named folders.")
@click.argument("experiment")
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "parquet"]),
    default="csv",
    show_default=True,
    help="csv: a file per table, pictures beside them; parquet: a folder per table, pictures inside.",
)
@click.option(
    "--partition-by",
    default="",
    metavar="COLUMNS",
    help="Parquet: columns of trials, with commas, that become folders such as dataset=digits.",
)
@click.option("--pictures/--no-pictures", default=True, show_default=True, help="Whether pictures go along.")
@click.option("--include-private", is_flag=True, help="Take pictures of private data along; says how many.")
def command(
    *, experiment: str, output: Path, form: str, partition_by: str, pictures: bool, include_private: bool
) -> None:
    """Write all four tables of an experiment to the new folder OUTPUT.

    The stored tables are plain Parquet already: pandas and DuckDB read them as they are. This is for what
    cannot, or for results to be handed on: pictures of private data are left out, unless they are asked for.

    \b
    Examples:
      bench export results/quickstart tables
      bench export results/quickstart tables --no-pictures
      bench export results/quickstart parquet --format parquet --partition-by dataset,defense
      bench export results/hospital internal --include-private
    """
    from harness.export import export
    from harness.results import load

    keys = [name.strip() for name in partition_by.split(",") if name.strip()]
    done = export(
        load(experiment, images=pictures),
        output,
        form=cast("Form", form),
        partition_by=keys,
        include_private=include_private and pictures,
    )
    rows = ", ".join(f"{count:,} {name}" for name, count in done.rows.items())
    click.echo(f"wrote {output}: {rows}; {done.pictures:,} pictures", err=True)
    if done.private:
        click.echo(f"it holds {done.private:,} pictures of private data: handle it like the data", err=True)
    elif done.left_out and pictures:
        click.echo(f"left out {done.left_out:,} pictures of private data (--include-private)", err=True)
