"""Where measurements go: Parquet files and the tables of `docs/benchmarks.md`."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attacks.catalog import ENGINE_VERSION
from fl.errors import UsageError
from harness.execute.lane import cpu_identity
from harness.execute.provenance import git_state

if TYPE_CHECKING:
    import pandas as pd

    from benchmarks.measure import Measurement

HEADINGS = ("model, attack", "engine", "peer", "ours", "peer's", "ratio", "dPSNR", "successes", "of peak")


def machine() -> dict[str, Any]:
    """Return the columns that describe the machine and the software."""
    state = git_state() or {}
    return {
        "cpu": _cpu_name(),
        "cpu_type": cpu_identity(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "platform": platform.system(),
        "python_version": platform.python_version(),
        "torch_version": torch.__version__,
        "engine_version": ENGINE_VERSION,
        "commit": state.get("commit"),
        "changed": state.get("changed"),
        "measured": datetime.now(UTC),
    }


def frames(measurements: Sequence[Measurement]) -> dict[str, pd.DataFrame]:
    """Return the tables by name: `attacks`, and `stopping` for what early stopping saves."""
    import pandas as pd

    about = machine()
    stopping = [
        {"model": m.case.name, "attack": m.case.attack, **m.stopping._asdict(), **about}
        for m in measurements
        if m.stopping is not None
    ]
    return {
        "attacks": pd.DataFrame([{**m.row(), **about} for m in measurements]),
        "stopping": pd.DataFrame(stopping),
    }


def write(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Write a Parquet file for each table with rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        if len(table):
            table.to_parquet(folder / f"{name}.parquet", index=False)


def render(document: str, tables: dict[str, pd.DataFrame]) -> str:
    """Return a document with the tables between their markers.

    A marker is a line `<!-- begin NAME -->`; what follows until `<!-- end NAME -->` is replaced. A table
    without rows leaves its place as it is.

    Raises:
        UsageError: If a marker is missing.
    """
    texts = {"attacks": _attacks(tables["attacks"]), "machine": _machine(tables["attacks"])}
    if len(tables["stopping"]):
        texts["stopping"] = _stopping(tables["stopping"])
    for name, text in texts.items():
        document = replace_marked(document, name, text)
    return document


def replace_marked(document: str, name: str, text: str) -> str:
    """Return a document with `text` between the markers of a name.

    Raises:
        UsageError: If a marker is missing.
    """
    pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    found = pattern.search(document)
    if found is None:
        raise UsageError(f"expected the markers `begin {name}` and `end {name}` in the document")
    return document[: found.start()] + found[1] + text + found[2] + document[found.end() :]


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _attacks(table: pd.DataFrame) -> str:
    rows = [
        (
            f"{row['model']} {row['size']} px, {row['attack']}, "
            f"{row['iterations']} iterations, {row['trials']} trials",
            f"{row['engine']} x {row['lane_width']}",
            row["peer"],
            f"{row['cpu_s_per_trial']:.3g}",
            f"{row['peer_cpu_s_per_trial']:.3g}",
            f"**{row['ratio_to_peer']:.2f}** ({row['ratio_ci_low']:.2f} to {row['ratio_ci_high']:.2f})",
            f"{row['dpsnr_median']:.2f}",
            f"{row['success_ours']:.2f}, {row['success_peer']:.2f}",
            f"{100 * row['fraction_of_peak']:.0f} %",
        )
        for row in _records(table)
    ]
    return markdown(HEADINGS, rows)


def _stopping(table: pd.DataFrame) -> str:
    headings = (
        "model, attack",
        "CPU s/trial",
        "with early stopping",
        "gain",
        "successes",
        "with early stopping",
    )
    rows = [
        (
            f"{row['model']}, {row['attack']}",
            f"{row['cpu_s_per_trial']:.3g}",
            f"{row['stopping_cpu_s_per_trial']:.3g}",
            f"{row['cpu_s_per_trial'] / row['stopping_cpu_s_per_trial']:.2f}",
            f"{row['success']:.2f}",
            f"{row['stopping_success']:.2f}",
        )
        for row in _records(table)
    ]
    return markdown(headings, rows)


def _machine(table: pd.DataFrame) -> str:
    row = _records(table)[0]
    return (
        f"{row['cpu']} ({row['cpu_type']}, {row['cores']} cores, 1-minute load {row['load']:.1f}), "
        f"one thread; {row['sgemm_gflops']:.0f} GFLOP/s in single-precision matrix products; "
        f"{row['platform']}; Python {row['python_version']}, torch {row['torch_version']}, "
        f"engine version {row['engine_version']}, {row['measured']:%Y-%m-%d}.\n"
    )


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
