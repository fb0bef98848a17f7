"""`python -m benchmarks.population`: a population of trial images at once against one after the other."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch

from attacks.cards_ggl import GglConfig
from attacks.engine.population import Aim, InTurn, Shared, Vectorised
from attacks.problem import Problem
from benchmarks.measure import timed
from benchmarks.report import machine, markdown, replace_marked
from fl.errors import BenchError
from fl.seeds import Streams
from harness.alike import AlikeTasks
from harness.execute.lane import single_thread
from harness.testing.small_env import SmallEnv

BLOCKS = 7
CANDIDATES = 50
"""A generation of CMA-ES as published."""

KINK = 1e-2
"""Relative difference of distances where rounding pushes an activation over the kink of a ReLU."""

HEADINGS = (
    "model",
    "parameters",
    "one by one, CPU ms",
    "vmap, CPU ms",
    "shared, CPU ms",
    "vmap gains",
    "shared gains",
)


@dataclass(frozen=True)
class Case:
    """A model.

    Attributes:
        what: What to call it.
        model: Its name.
        options: Its options.
        size: H = W of the images.
    """

    what: str
    model: str
    options: Mapping[str, Any]
    size: int

    def aim(self) -> Aim:
        """Return what candidates are compared with: one image's gradient, by GGL's distance."""
        device = torch.device("cpu")
        alike = AlikeTasks.on(self.model, self.options, size=self.size, knows_labels=True, device=device)
        problem = Problem.of(alike.task(0, GglConfig()), SmallEnv(), unroll=False)
        labels = problem.known_labels()
        assert labels is not None
        return Aim(problem, labels, "l2", dict.fromkeys(problem.observed, 1 / len(problem.observed)))


CASES = (
    Case("LeNet, 16 px", "lenet", {"convs": 3}, 16),
    Case("ConvNet of 2 layers, 16 px", "convnet", {"convs": 2, "width": 8}, 16),
    Case("ConvNet of 3 layers, 16 px", "convnet", {"convs": 3, "width": 16}, 16),
    Case("ResNet-20, 32 px", "resnet20", {}, 32),
)


@dataclass
class Measured:
    """CPU seconds of the same distances computed in three ways, in turn.

    Attributes:
        case: The model.
        parameters: Numbers of its gradient.
        seconds: By formulation.
    """

    case: Case
    parameters: int
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Return the medians, and what they gain on one by one."""
        found = {name: statistics.median(seconds) for name, seconds in self.seconds.items()}
        return {
            "what": self.case.what,
            "parameters": self.parameters,
            **{f"{name}_s": seconds for name, seconds in found.items()},
            **{f"{name}_gain": found["reference"] / found[name] for name in ("vmap", "shared")},
        }


def measure(case: Case, blocks: int) -> Measured:
    """Compare a population with one gradient in all three ways, in turn.

    Raises:
        BenchError: If they do not agree.
    """
    aim = case.aim()
    ways = [InTurn(aim), Vectorised(aim, CANDIDATES), Shared(aim, CANDIDATES)]
    stream = Streams(0).torch("population")
    shape = (CANDIDATES, 1, *aim.problem.task.observation.image.shape)
    inputs = torch.randn(shape, generator=stream)
    expected = ways[0].distances(inputs)
    for way in ways[1:]:
        if not torch.allclose(way.distances(inputs), expected, rtol=KINK):
            raise BenchError(f"{case.what}: expected equal distances from {way.formulation}, got others")
    measured = Measured(case, sum(tensor.numel() for tensor in aim.problem.observed.values()))
    for _ in range(blocks):
        for way in ways:
            seconds = timed(lambda: way.distances(inputs))[1]  # noqa: B023
            measured.seconds.setdefault(way.formulation, []).append(seconds)
    return measured


def render(document: str, measured: list[Measured]) -> str:
    """Return a document with the table between the markers `population`.

    Raises:
        UsageError: If a marker is missing.
    """
    lines = []
    for row in (each.row() for each in measured):
        times = [f"{1000 * row[f'{name}_s']:.0f}" for name in ("reference", "vmap", "shared")]
        gains = f"{row['vmap_gain']:.1f}", f"**{row['shared_gain']:.1f}**"
        lines.append((row["what"], f"{row['parameters']:,}", *times, *gains))
    return replace_marked(document, "population", markdown(HEADINGS, lines))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--blocks", type=click.IntRange(min=1), default=BLOCKS, show_default=True, help="Measurements per row."
)
@click.option(
    "--results", default="results/benchmarks", show_default=True, help="Folder of the Parquet file."
)
@click.option("--document", help="Markdown file whose table is replaced; none by default.")
def main(*, blocks: int, results: str, document: str | None) -> None:
    """Measure populations of trial images against one after the other, in one process with one thread."""
    import pandas as pd

    single_thread()
    measured = [measure(case, blocks) for case in CASES]
    about = machine()
    table = pd.DataFrame([{**each.row(), **about} for each in measured])
    folder = Path(results)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(folder / "population.parquet", index=False)
    click.echo(table[["what", "reference_s", "vmap_gain", "shared_gain"]].to_string(index=False))
    if document:
        path = Path(document)
        try:
            path.write_text(render(path.read_text(encoding="utf-8"), measured), encoding="utf-8")
        except BenchError as error:
            raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
