"""From comparisons to the columns of a trial's row, with a reason for every null."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fl.cards import MetricCard
from fl.seeds import Streams
from harness.metrics import METRICS
from harness.metrics.catalog import IDENTIFICATION_DISTANCE, Yardstick, trial_columns
from harness.metrics.comparison import Comparison
from harness.metrics.image import ssim_size
from harness.metrics.pairs import Gallery, Unavailable
from harness.metrics.perceptual import lpips_size
from harness.metrics.regions import Regions
from harness.metrics.statistics import Draws, Summary, Values, draw_targets, summarise

if TYPE_CHECKING:
    from torch import Tensor

Cell = float | int | str | bool | None
Means = Mapping[str, float]
"""By metric, its mean over all images of a trial; a metric without a defined value has none."""


class ScoreSheet:
    """The columns of one trial, filled part by part; what is never filled stays null."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._cells: dict[str, Cell] = dict.fromkeys((column.name for column in trial_columns()), None)
        self._reasons: dict[str, str] = {}

    def columns(self) -> dict[str, Cell]:
        """Return every column of `catalog.trial_columns()`."""
        return self._cells | {"null_reasons": json.dumps(self._reasons, sort_keys=True)}

    def blind(self, reason: str, *, n_targets: int) -> None:
        """Note that nothing can be compared with the truth."""
        self._cells["n_targets"] = n_targets
        self._reasons["*"] = reason

    def own(self, targets: Sequence[Comparison]) -> None:
        """Fill a metric's mean, spread and interval from the attack's own comparisons, one per target."""
        cards = _pair_cards()
        self._summarise(cards, [_values(targets, card) for card in cards])
        self._cells["n_targets"] = len(targets)
        self._cells["n_images"] = sum(len(target.matched) for target in targets)
        self._cells["n_missed"] = sum(sum(target.missed) for target in targets)
        if not self._cells["n_images"]:
            self._reasons["*"] = "the targets hold no private images"
        if len(targets) < 2:
            self._reasons["*_ci_*"] = "an interval needs at least two targets"

    def floors(self, floors: Mapping[str, Means]) -> None:
        """Fill `floor_<metric>` with the floor that leaks most, and name it."""
        best: dict[str, str] = {}
        for card in _pair_cards():
            sign = 1.0 if card.leaks_more == "higher" else -1.0
            known = {name: means[card.name] for name, means in floors.items() if card.name in means}
            if known:
                name = max(known, key=lambda name: sign * known[name])
                self._cells[f"floor_{card.column}"] = known[name]
                best[card.name] = name
        self._cells["floor"] = json.dumps(best, sort_keys=True)

    def missing(self, reasons: Mapping[str, str]) -> None:
        """Note why metrics cannot be had."""
        self._reasons |= {f"*{METRICS.get(name).column}*": why for name, why in reasons.items()}

    def yardstick(self, yardstick: Yardstick, means: Means) -> None:
        """Fill `<yardstick>_<metric>`."""
        self._cells |= {f"{yardstick}_{METRICS.get(name).column}": mean for name, mean in means.items()}

    def shuffled(self, targets: Sequence[Comparison]) -> None:
        """Fill the shuffled control; `targets` is empty if there was no other target."""
        self.yardstick("shuffled", means_of(targets))
        if not targets:
            self._reasons["shuffled_*"] = "the shuffled control needs at least two targets"
        elif not sum(len(target.matched) for target in targets):
            self._reasons["shuffled_*"] = "every target shares its images with the one it is compared with"

    def labels(self, own: Sequence[float], shuffled: Sequence[float]) -> None:
        """Fill the label accuracy from one value per target that has labels; empty if none were recovered."""
        card = METRICS.get("label_accuracy")
        if not own:
            self._reasons["*label_accuracy*"] = "the attack recovers no labels"
        self._summarise([card], [[np.array([value]) for value in own]])
        if shuffled:
            self._cells[f"shuffled_{card.column}"] = float(np.mean(shuffled))

    def evaluated(self, own: Mapping[str, float], ceiling: Mapping[str, float]) -> None:
        """Fill what an evaluator measures, of the attack's own images and of real ones in their place."""
        self._cells |= {METRICS.get(name).column: value for name, value in own.items()}
        self.yardstick("ceiling", ceiling)

    def made(self, finite: Sequence[bool]) -> None:
        """Fill how many images model inversion made, given which are finite."""
        self._cells["n_reconstructions"] = len(finite)
        self._cells["n_missed"] = finite.count(False)

    def evaluator(self, accuracy: float | None) -> None:
        """Fill how good the judge of model inversion is."""
        self._cells["evaluator_accuracy"] = accuracy
        if accuracy is None:
            self._reasons["evaluator_accuracy"] = "the test part holds no images of the evaluator's classes"

    def explain(self, reasons: Mapping[str, str]) -> None:
        """Note why columns are null, by name or pattern."""
        self._reasons |= reasons

    def sizes(self, images: Tensor) -> None:
        """Fill what `n x C x H x W` images were resized to."""
        self._cells["ssim_upsampled_to"] = ssim_size(images)
        self._cells["lpips_upsampled_to"] = lpips_size(images)

    def gallery(self, gallery: Gallery | Unavailable) -> None:
        """Fill the size, chance level and distance of identification."""
        if isinstance(gallery, Unavailable):
            self._reasons["identification_*"] = gallery.reason
            return
        self._cells["identification_gallery"] = len(gallery.image_ids)
        self._cells["identification_chance"] = 1 / len(gallery.image_ids)
        self._cells["identification_distance"] = IDENTIFICATION_DISTANCE

    def regions(self, regions: Regions | Unavailable) -> None:
        """Fill where the sensitive regions come from, and how much of an image they are."""
        if isinstance(regions, Unavailable):
            self._reasons["region_*"] = regions.reason
            return
        self._cells["region_source"] = regions.source
        if regions.masks:
            self._cells["region_share"] = regions.share
        else:
            self._reasons["region_share"] = "the targets hold no private images"

    def _summarise(self, cards: Sequence[MetricCard[Any]], metrics: Sequence[Sequence[Values]]) -> None:
        summaries = summarise(metrics, partial(_resamples, self._streams))
        for card, targets, summary in zip(cards, metrics, summaries, strict=True):
            if summary is None:
                if any(len(values) for values in targets):
                    self._reasons[f"*{card.column}*"] = f"{card.column} is undefined for every image"
                continue
            self._cells |= {f"{card.column}{suffix}": value for suffix, value in _spread(summary).items()}
            if summary.interval is None:
                why = "an interval needs at least two targets with a value"
                self._reasons.setdefault(f"{card.column}_ci_*", why)


@lru_cache(maxsize=32)
def _resamples(streams: Streams, n: int) -> Draws:
    return draw_targets(n, streams.numpy("bootstrap"))


def _spread(summary: Summary) -> dict[str, float | None]:
    interval = summary.interval
    return {
        "": summary.mean,
        "_ci_low": None if interval is None else interval.low,
        "_ci_high": None if interval is None else interval.high,
        "_median": summary.median,
        "_p95": summary.p95,
        "_max": summary.max,
    }


def _pair_cards() -> list[MetricCard[Any]]:
    return [card for card in METRICS if card.kind == "pair"]


def _values(targets: Sequence[Comparison], card: MetricCard[Any]) -> list[Values]:
    return [target.values[card.name] for target in targets if card.name in target.values]


def means_of(targets: Sequence[Comparison]) -> Means:
    """Return the mean of every metric over the images of all targets, where it has one."""
    means = {}
    for card in _pair_cards():
        values = [column[~np.isnan(column)] for column in _values(targets, card)]
        if any(map(len, values)):
            means[card.name] = float(np.concatenate(values).mean())
    return means
