"""What leakage is measured by, as tables and pictures need to know it.

Who sees updates is judged by the private images recovered from them, who sees global models only by what an
evaluator says of the images made of a class; the two have no measure in common.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from fl.errors import UsageError
from harness.metrics.declare import PSNR_CAP_DB

if TYPE_CHECKING:
    import pandas as pd

Metric = Literal["ssim", "psnr_db", "lpips", "attack_top1", "knn_distance", "evaluator_fid"]
"""Measures that leakage can be told by."""
Seen = Literal["updates", "models"]
"""What the adversary sees: clients' updates (alone or summed), or the global models."""


class Measure(NamedTuple):
    """A measure of leakage.

    Attributes:
        column: Its column of `trials/`.
        words: Its name in a sentence.
        leaks_more: Which way means that more leaked.
        low: Smallest value that a mean can have.
        high: Largest value.
        digits: Digits behind the point that tables show.
        unit: Its unit; empty for none.
        heading: Its name above a column, if that is not `words`.
    """

    column: str
    words: str
    leaks_more: Literal["higher", "lower"]
    low: float
    high: float
    digits: int
    unit: str = ""
    heading: str = ""

    @property
    def title(self) -> str:
        """Its name above a column, with its unit."""
        return " ".join(filter(None, (self.heading or self.words, self.unit)))

    @property
    def sign(self) -> float:
        """1 where higher means that more leaked, else -1."""
        return 1.0 if self.leaks_more == "higher" else -1.0

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest difference of two means."""
        return self.low - self.high, self.high - self.low

    @property
    def beyond_floor(self) -> str:
        """What leakage is where it is told by this measure."""
        where = "above" if self.leaks_more == "higher" else "below"
        return ", ".join(filter(None, (f"{self.words} {where} the best floor", self.unit)))


_ALL = (
    Measure("psnr_db", "PSNR", "higher", -math.inf, PSNR_CAP_DB, 1, unit="dB"),
    Measure("ssim", "SSIM", "higher", -1.0, 1.0, 2),
    Measure("lpips", "LPIPS", "lower", 0.0, math.inf, 3),
    Measure("success_rate", "success rate", "higher", 0.0, 1.0, 2),
    Measure("attack_top1", "attack accuracy", "higher", 0.0, 1.0, 2, heading="attack top-1"),
    Measure("attack_top5", "top-5 attack accuracy", "higher", 0.0, 1.0, 2, heading="attack top-5"),
    Measure("knn_distance", "KNN distance", "lower", 0.0, math.inf, 1),
    Measure(
        "centre_distance",
        "distance to the class centre",
        "lower",
        0.0,
        math.inf,
        1,
        heading="centre distance",
    ),
    Measure("evaluator_fid", "evaluator FID", "lower", 0.0, math.inf, 1),
    Measure("precision", "precision", "higher", 0.0, 1.0, 2),
    Measure("recall", "recall", "higher", 0.0, 1.0, 2),
    Measure("density", "density", "higher", 0.0, math.inf, 2),
    Measure("coverage", "coverage", "higher", 0.0, 1.0, 2),
    Measure("pairwise_distance", "pairwise distance", "higher", 0.0, math.inf, 3),
)
MEASURES: Mapping[str, Measure] = {measure.column: measure for measure in _ALL}
"""Every measure that tables show, by column."""
SHOWN: Mapping[Seen, tuple[str, ...]] = {
    "updates": ("psnr_db", "ssim", "lpips", "success_rate"),
    "models": tuple(measure.column for measure in _ALL[4:]),
}
"""Columns that tables show, by what the adversary sees."""
TOLD_BY: Mapping[Seen, tuple[Metric, ...]] = {
    "updates": ("ssim", "psnr_db", "lpips"),
    "models": ("attack_top1", "knn_distance", "evaluator_fid"),
}
"""What leakage can be told by, the usual one first."""
METRICS: tuple[Metric, ...] = (*TOLD_BY["updates"], *TOLD_BY["models"])


def seen(kind: str) -> Seen:
    """Return what the adversary of an `observe.kind` sees."""
    return "models" if kind == "global_model" else "updates"


def metric_of(rows: pd.DataFrame, asked: Metric | None) -> Metric:
    """Return what the leakage of a setting is told by: what was asked for where it has that, else the usual.

    Args:
        rows: Trials of one setting, with labels (`labels.with_labels`).
        asked: What the user asked for, or None.
    """
    possible = TOLD_BY[rows["seen"].iloc[0]]
    return asked if asked in possible else possible[0]


def require(asked: Metric | None, trials: pd.DataFrame, experiment: str) -> None:
    """Refuse a measure that no trial of an experiment has, unless nothing at all could be measured.

    Args:
        asked: What the user asked for, or None.
        trials: Its trials.
        experiment: Its folder.

    Raises:
        UsageError: If no trial has it.
    """
    judged = any(trials[usual].notna().any() for usual in ("psnr_db", "attack_top1"))
    if asked is not None and judged and trials[asked].isna().all():
        raise UsageError(
            f"expected {asked} in a complete trial of {experiment}, got none; its null_reasons say why"
        )
