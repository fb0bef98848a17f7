"""Data sets, their cards and partitions. Importing this imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fl.cards import DataCard
from fl.data.base import Dataset, Part, PublicImages, public_data
from fl.registry import Registry
from fl.specs import Plugin

__all__ = ["DATASETS", "Dataset", "Part", "PublicImages", "load", "public_data"]

_KEPT = 4
_loaded: dict[str, Dataset] = {}


def _builtin() -> Iterable[DataCard[Any]]:
    from fl.data.catalog import CARDS

    return CARDS


DATASETS: Registry[DataCard[Any]] = Registry(
    "dataset", group="leakbench.datasets", card_type=DataCard, builtin=_builtin
)
"""Every data set; its implementation is called as `f(config)` and returns a `Dataset`."""


def load(plugin: Plugin) -> Dataset:
    """Return the data set of `plugin`; the last few loaded ones are kept in memory.

    Raises:
        UnknownPluginError: If there is no data set of that name.
        DataUnavailableError: If its files are not on this machine.
    """
    if plugin.canonical not in _loaded:
        dataset: Dataset = DATASETS.implementation(plugin.name)(plugin.config)
        while len(_loaded) >= _KEPT:
            del _loaded[next(iter(_loaded))]
        _loaded[plugin.canonical] = dataset
    return _loaded[plugin.canonical]
