"""Leakage and utility; the only place where truth meets reconstruction. Importing it costs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fl.cards import MetricCard
from fl.registry import Registry


def _builtin() -> Iterable[MetricCard[Any]]:
    from harness.metrics.catalog import CARDS

    return CARDS


METRICS: Registry[MetricCard[Any]] = Registry(
    "metric", group="leakbench.metrics", card_type=MetricCard, builtin=_builtin
)
"""Every measure of leakage; the implementation of one of kind `pair` is called as `f(pairs)` with
`harness.metrics.pairs.Pairs` and returns one float64 value per pair (NaN: undefined for that pair); that of
one that an evaluator measures is called with `harness.metrics.inversion.Inversion` and returns a float. Both
may raise `NotApplicableError`, whose message is the reason for a null."""
