"""Attackers who know nothing of a model, beside those who do.

What is recovered from updates is scored together with its floors, on the same targets. Model inversion's
floor is an attack of its own (random images of the prior): a trial's floor is the best of those that were run
on the same federation and round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attacks import ATTACKS
from harness.analysis.measures import MEASURES, SHOWN

if TYPE_CHECKING:
    import pandas as pd

SAME = ["setting", "condition", "defense_label", "noise_budget", "seed"]
"""What a trial and its floor have in common."""


def floors() -> frozenset[str]:
    """Return the names of the installed attacks that are floors."""
    return frozenset(card.name for card in ATTACKS if card.family == "floor")


def with_floors(labelled: pd.DataFrame) -> pd.DataFrame:
    """Return trials with `floor_<measure>` of those that see models; NaN where no floor was run beside one.

    Args:
        labelled: Trials with labels (`labels.with_labels`).
    """
    inverted = labelled["seen"] == "models"
    columns = [column for column in SHOWN["models"] if column in labelled]
    if not inverted.any():
        return labelled
    run = labelled[inverted & (labelled["status"] == "complete") & labelled["attack"].isin(floors())]
    best = {column: "max" if MEASURES[column].leaks_more == "higher" else "min" for column in columns}
    found = run.groupby(SAME).agg(best)
    joined = labelled[SAME].merge(found, how="left", left_on=SAME, right_index=True)
    return labelled.assign(**{f"floor_{column}": joined[column].to_numpy() for column in columns})
