"""What an experiment's folder says about its trials; nothing is read, or imported, where there is none."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.plan.estimate import CostKey


def statuses(folder: Path) -> dict[str, str]:
    """Return the status of every stored trial by id.

    Raises:
        StoreError: If a file is damaged.
    """
    if not (folder / "trials").is_dir():
        return {}
    from harness.store.experiment import Experiment

    return Experiment.open(folder).statuses()


def past_wall_s(folder: Path) -> dict[CostKey, float]:
    """Return the median `wall_s` of complete trials by what it mostly depends on."""
    if not (folder / "trials").is_dir():
        return {}
    from harness.plan.estimate import CostKey
    from harness.results import load

    trials = load(folder).trials
    columns = ["attack", "model", "dataset", "federation_batch_size", "wall_s"]
    complete = trials.loc[trials["status"] == "complete", columns].dropna()
    times: dict[CostKey, list[float]] = defaultdict(list)
    for attack, model, dataset, batch_size, wall_s in complete.itertuples(index=False):
        times[CostKey(attack, model, dataset, int(batch_size))].append(wall_s)
    return {key: median(values) for key, values in times.items()}
