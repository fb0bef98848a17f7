"""`python -m benchmarks.overhead`: what a run costs besides solving, and whether its memory stays flat."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from attacks import ATTACKS
from benchmarks.report import machine, markdown, replace_marked
from benchmarks.sections import Sections, Spent, since_process_start
from fl.errors import BenchError
from harness.config.matrix import load_matrix
from harness.execute import bundle, driver, lane, session
from harness.execute.environment import Environment
from harness.execute.inline import InlineExecutor
from harness.execute.materials import Materials
from harness.execute.rows import RowMaker
from harness.execute.score import Scorer
from harness.execute.session import RunRequest, inline, run_matrix
from harness.store.experiment import Experiment

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from harness.execute.events import RunResult

MATRIX = """
version: 1
name: overhead
seeds: [0, 1]
defaults:
  data: {{name: digits, size: 32, normalise: dataset}}
  federation: {{algorithm: fedsgd, clients: 10, rounds: {rounds}, batch_size: 1, lr: 0.01}}
  targets: 8
matrix:
  model: [lenet, resnet20]
  defense: [none, {{name: gaussian, sigma: 1e-3}}, {{name: clipping, bound: 1}}]
  attack:
    - {{name: dlg, iterations: {outer}, tolerance: 0, patience: {outer}}}
    - {{name: idlg, iterations: {outer}, tolerance: 0, patience: {outer}}}
    - {{name: inverting_gradients, iterations: {steps}}}
  observe.round: {{range: [0, {rounds}]}}
exclude:
  - {{model: resnet20, attack: "*dlg"}}
"""
"""Two models, three defenses and two seeds make twelve federations, every round of which is attacked: a LeNet
in three ways, a ResNet-20 in one."""

MANY = """
version: 1
name: many
seeds: [0, 1]
defaults:
  data: {{name: digits, size: 16, normalise: dataset}}
  model: {{name: lenet, convs: 3}}
  federation: {{algorithm: fedsgd, clients: 10, rounds: {rounds}, batch_size: 1, lr: 0.2}}
  targets: 4
matrix:
  defense: [none, {{name: gaussian, sigma: 1e-3}}]
  attack:
    - {{name: dlg, iterations: 2}}
    - {{name: idlg, iterations: 2}}
    - {{name: inverting_gradients, iterations: 5}}
  observe.round: {{range: [0, {rounds}]}}
"""
"""Many short trials, to see whether memory grows with them."""

ATTACKED = ("dlg", "idlg", "inverting_gradients")
OUTER, STEPS, ROUNDS, MANY_ROUNDS = 100, 200, 4, 40
QUICK_OUTER, QUICK_STEPS, QUICK_ROUNDS, QUICK_MANY_ROUNDS = 20, 10, 1, 4
WARM_UP = 0.25
"""The share of trials after which memory is expected to stay as it is."""
TELL_EVERY = 20
"""Trials between two words about progress."""
PAGE_MIB = 4096 / 2**20

START, SOLVING, REST = "start", "solving", "the rest"
APART = (START, SOLVING)
"""Sections that are no overhead: a process starts once, and solving is what it is for."""
SECTIONS = {
    START: "interpreter, imports, the lane",
    "planning": "the matrix, applicability, bundles",
    "federations": "training, checkpoints, utility",
    "observing": "data, clients' updates, tasks",
    SOLVING: "inside `Attack.solve`",
    "recording": "snapshots for `traces/`",
    "scoring": "metrics, floors, ceilings, pictures",
    "storing": "artifacts, rows, tables",
    REST: "run loop, progress",
}


@dataclass
class Profile:
    """What was measured of a run.

    Attributes:
        sections: The stopwatch.
        memory_mib: Resident memory after each trial.
        total: Trials of the run.
        spent: What each section took, until the run ended.
    """

    sections: Sections = field(default_factory=lambda: Sections(REST))
    memory_mib: list[float] = field(default_factory=list)
    total: int = 0
    spent: dict[str, Spent] = field(default_factory=dict)

    def watch(self) -> ExitStack:
        """Time everything that a run does, for the time of a `with`."""
        timed: list[tuple[Any, str, str]] = [
            *((session, name, "planning") for name in ("make_plan", "_store_not_applicable")),
            (driver, "Schedule", "planning"),
            (InlineExecutor, "start", START),
            (lane, "run_federation", "federations"),
            (Materials, "seen", "observing"),
            (bundle, "make_task", "observing"),
            *((ATTACKS.implementation(name), "solve", SOLVING) for name in ATTACKED),
            (Environment, "record", "recording"),
            (Scorer, "result", "scoring"),
            (bundle, "store_result", "storing"),
            *((RowMaker, name, "storing") for name in ("has_result", "has_federation", "complete")),
            *((Experiment, name, "storing") for name in ("open", "recover", "begin", "commit")),
            (Experiment, "compact_if_needed", "storing"),
        ]
        stack = ExitStack()
        for owner, attribute, name in timed:
            stack.enter_context(self.sections.timing(owner, attribute, name))
        return stack

    # The run tells its listener what happens (`harness.execute.events.RunListener`).

    def started(self, total: int, lanes: int, description: str) -> None:
        """Note how many trials there are."""
        self.total = total

    def progress(self, progress: object) -> None:
        """Ignore it."""

    def trial(self, done: object) -> None:
        """Look how much memory the process holds, and say how far the run is."""
        self.memory_mib.append(resident_mib())
        if len(self.memory_mib) % TELL_EVERY == 0:
            click.echo(f"{len(self.memory_mib)} of {self.total} trials", err=True)

    def message(self, text: str) -> None:
        """Ignore it."""

    def finished(self, result: RunResult) -> None:
        """Ignore it."""


def resident_mib() -> float:
    """Return the memory that the process holds now; not a number where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_MIB
    except OSError:
        return np.nan


def growth(memory_mib: Sequence[float]) -> float:
    """Return by how many MiB memory grows per 100 trials, by least squares, once it is warm."""
    warm = np.array(memory_mib[int(len(memory_mib) * WARM_UP) :])
    if len(warm) < 2:
        return np.nan
    return float(100 * np.polyfit(np.arange(len(warm)), warm, 1)[0])


def overhead(spent: dict[str, Spent], *names: str) -> float:
    """Return the CPU time of sections, by default all but start and solving, as a share of solving's."""
    chosen = names or tuple(name for name in spent if name not in APART)
    return sum(spent.get(name, Spent()).cpu_s for name in chosen) / spent[SOLVING].cpu_s


def measure(text: str) -> tuple[Profile, RunResult]:
    """Run a matrix inline in a folder of its own, under the stopwatch."""
    profile = Profile()
    with tempfile.TemporaryDirectory() as folder, profile.watch():
        path = Path(folder, "overhead.yaml")
        path.write_text(text, encoding="utf-8")
        with profile.sections.within("planning"):
            matrix = load_matrix(path)
        result = run_matrix(RunRequest(matrix, Path(folder), inline, device="cpu"), profile)
    profile.spent = profile.sections.spent
    return profile, result


def frame(profile: Profile, many: Profile, began: Spent) -> pd.DataFrame:
    """Return a row for each section of a run, with the memory of a run of many short trials."""
    import pandas as pd

    spent = dict(profile.spent)
    start = spent.get(START, Spent())
    spent[START] = Spent(start.cpu_s + began.cpu_s, start.wall_s + began.wall_s)
    about = {
        "trials": len(profile.memory_mib),
        "peak_mib": max(profile.memory_mib),
        "many_trials": len(many.memory_mib),
        "many_peak_mib": max(many.memory_mib),
        "growth_mib_per_100_trials": growth(many.memory_mib),
        "overhead": overhead(spent),
        **machine(),
    }
    rows = [
        {"section": name, **spent.get(name, Spent())._asdict(), "share": overhead(spent, name), **about}
        for name in SECTIONS
    ]
    return pd.DataFrame(rows)


def table(measured: pd.DataFrame) -> str:
    """Return the measurement as Markdown."""
    rows = [
        (
            row["section"],
            SECTIONS[row["section"]],
            f"{row['cpu_s']:.1f}",
            f"{row['wall_s']:.1f}",
            "" if row["section"] in APART else f"{100 * row['share']:.2f} %",
        )
        for row in measured.to_dict("records")
    ]
    first = measured.iloc[0]
    return (
        markdown(("section", "what", "CPU s", "wall s", "of solving"), rows)
        + f"\n{first['trials']} trials. Everything but start and solving: "
        + f"**{100 * first['overhead']:.1f} %** of solving's CPU time; {first['peak_mib']:.0f} MiB at most. "
        + f"{first['many_trials']} short trials: {first['many_peak_mib']:.0f} MiB at most, growing by "
        + f"{first['growth_mib_per_100_trials']:.2f} MiB per 100 trials after the first quarter.\n"
    )


def _completed(text: str) -> Profile:
    profile, result = measure(text)
    if result.exit_code:
        raise click.ClickException(f"expected all trials to complete, got {result}")
    return profile


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="A minute's work, of which the fixed costs are a larger part.")
@click.option("--rounds", type=click.IntRange(min=1), help=f"24 trials each; {ROUNDS} by default.")
@click.option(
    "--results", default="results/benchmarks", show_default=True, help="Folder of the Parquet file."
)
@click.option("--document", help="Markdown file whose table is replaced; none by default.")
def main(*, quick: bool, rounds: int | None, results: str, document: str | None) -> None:
    """Run a matrix inline, with one thread, and say where the time goes."""
    began = since_process_start()
    outer, steps, usual = (QUICK_OUTER, QUICK_STEPS, QUICK_ROUNDS) if quick else (OUTER, STEPS, ROUNDS)
    profile = _completed(MATRIX.format(rounds=rounds or usual, outer=outer, steps=steps))
    many = _completed(MANY.format(rounds=QUICK_MANY_ROUNDS if quick else MANY_ROUNDS))
    measured = frame(profile, many, began)
    Path(results).mkdir(parents=True, exist_ok=True)
    measured.to_parquet(Path(results, "overhead.parquet"), index=False)
    click.echo(table(measured))
    if document is not None:
        path = Path(document)
        try:
            text = replace_marked(path.read_text(encoding="utf-8"), "overhead", table(measured))
            path.write_text(text, encoding="utf-8")
        except (OSError, BenchError) as error:
            raise click.ClickException(f"{document}: {error}") from error


if __name__ == "__main__":
    main()
