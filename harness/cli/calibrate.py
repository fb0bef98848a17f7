"""`bench calibrate`: which formulation and lane width are fastest for a model on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fl.errors import UsageError
from harness.cli.output import console, emit_json, json_option, table

if TYPE_CHECKING:
    from harness.calibration import Speed


@click.command("calibrate", short_help="Measure how models are attacked fastest on this machine.")
@click.argument("models", nargs=-1, required=True)
@click.option(
    "--size", type=click.IntRange(16, 64), default=32, show_default=True, help="Side of the images."
)
@click.option(
    "--lanes",
    default="1,16,32,64",
    show_default=True,
    metavar="N,...",
    help="Numbers of tasks side by side to try.",
)
@click.option(
    "--iterations", type=click.IntRange(min=1), default=4, show_default=True, help="Of a measurement."
)
@click.option(
    "--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Of each measurement."
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--output",
    default="engine-table.json",
    show_default=True,
    metavar="FILE",
    help="Where to write the table: the one in use, with the models that were measured.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every measurement to stderr.")
@json_option
def command(
    *,
    models: tuple[str, ...],
    size: int,
    lanes: str,
    iterations: int,
    repeats: int,
    device: str,
    output: str,
    verbose: bool,
    as_json: bool,
) -> None:
    """Measure formulations and lane widths for MODELS and write the solver's table with the fastest ones.

    A model is a name, with options after commas. A run uses the shipped table unless the environment variable
    LEAKBENCH_ENGINE_TABLE names another; the column `engine_table` tells which one a trial was solved by.
    Results under two tables agree statistically, not bit for bit.

    \b
    Examples:
      bench calibrate lenet resnet20
      bench calibrate resnet18,stem=cifar --lanes 1,16 --output mine.json
      LEAKBENCH_ENGINE_TABLE=mine.json bench run matrix.yaml
    """
    from attacks.engine.table import chosen_by_user, current
    from harness.alike import AlikeTasks
    from harness.calibration import Calibration, calibrated
    from harness.execute.lane import probe_device, single_thread

    if verbose:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(message)s")
    single_thread()
    found = probe_device(gpu=device == "cuda")
    calibration = Calibration(lanes=_widths(lanes), iterations=iterations, repeats=repeats)
    engine_table, report = chosen_by_user() or current(), []
    for name, options in map(_model, models):
        alike = AlikeTasks.on(name, options, size=size, knows_labels=True, device=found)
        speeds = calibration.measure(alike)
        engine_table = calibrated(engine_table, alike, speeds)
        report += _rows(name, speeds)
        Path(output).write_text(engine_table.text, encoding="utf-8")
    if as_json:
        emit_json({"file": output, "engine_table": engine_table.digest, "measured": report})
        return
    columns = ("model", "formulation", "lanes", "ms_per_evaluation", "chosen")
    cells = [
        [
            row["model"],
            row["formulation"],
            row["lanes"],
            f"{row['ms_per_evaluation']:.3g}",
            "*" * row["chosen"],
        ]
        for row in report
    ]
    console().print(table([column.replace("_", " ") for column in columns], cells, numbers=("lanes",)))
    click.echo(f"\nTable: {output} ({engine_table.digest}); LEAKBENCH_ENGINE_TABLE={output} bench run ...")


def _rows(model: str, speeds: list[Speed]) -> list[dict[str, Any]]:
    from harness.calibration import best

    chosen = best(speeds)
    return [
        {
            "model": model,
            **speed.choice._asdict(),
            "ms_per_evaluation": 1000 * speed.seconds,
            "chosen": speed.choice == chosen,
        }
        for speed in speeds
    ]


def _model(text: str) -> tuple[str, dict[str, Any]]:
    """From `name,option=value,...` to name and options."""
    import yaml

    name, *pairs = text.split(",")
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"expected NAME,OPTION=VALUE,..., got {text!r}")
        options[key] = yaml.safe_load(value)
    return name, options


def _widths(text: str) -> list[int]:
    from attacks.engine.table import BLOCK, is_width

    try:
        widths = sorted({int(width) for width in text.split(",")})
    except ValueError as error:
        raise UsageError(f"--lanes: expected numbers with commas between, got {text!r}") from error
    if not all(map(is_width, widths)):
        raise UsageError(f"--lanes: expected 1 or multiples of {BLOCK}, got {text!r}")
    return widths
