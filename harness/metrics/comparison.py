"""Sets of guesses against targets' private images: each matched once, then all measured pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fl.errors import NotApplicableError
from harness.metrics import METRICS
from harness.metrics.catalog import worst
from harness.metrics.matching import match
from harness.metrics.pairs import Instruments, Pairs, on_request
from harness.metrics.statistics import Values

VALUES_AT_ONCE = 2**20
"""Pixel values, over all channels, of the pairs that are measured at once: enough to hide fixed costs, and
little enough to bound the memory."""


@dataclass(frozen=True)
class Truth:
    """A target's private images.

    Attributes:
        images: `n x C x H x W` in [0, 1].
        image_ids: Their ids.
    """

    images: Tensor
    image_ids: tuple[str, ...]

    def without(self, image_ids: tuple[str, ...]) -> tuple[Truth, list[int]]:
        """Return the images whose ids are not among `image_ids`, and their positions here."""
        kept = [index for index, image_id in enumerate(self.image_ids) if image_id not in image_ids]
        return Truth(self.images[kept], tuple(self.image_ids[index] for index in kept)), kept


class Sides(NamedTuple):
    """What is compared.

    Attributes:
        truth: The n private images.
        guess: `m x C x H x W`.
    """

    truth: Truth
    guess: Tensor


@dataclass(frozen=True)
class Comparison:
    """What guesses score against a target's n private images.

    Attributes:
        matched: For each private image, the position of its guess, or None if too few were made.
        missed: For each private image, whether it has no finite guess.
        values: By metric, one value per private image; NaN where the metric is undefined or it was missed.
        reasons: By metric that cannot be had, why.
    """

    matched: tuple[int | None, ...]
    missed: tuple[bool, ...]
    values: Mapping[str, Values]
    reasons: Mapping[str, str]

    def penalised(self, noise: Mapping[str, Values]) -> Comparison:
        """Return the same with values for the private images that were missed.

        What has no finite guess was not recovered: it gets the value that leaks least, and where a metric has
        none, the one that random noise scores.

        Args:
            noise: Values of random noise against the same images.
        """
        if not any(self.missed):
            return self
        missed = np.array(self.missed)
        values = {name: _penalise(self.values.get(name), missed, name, noise[name]) for name in noise}
        return replace(self, values=values)


class _Matched(NamedTuple):
    """One comparison before it is measured: which private images have a finite guess, and which guess."""

    matched: tuple[int | None, ...]
    found: list[int]
    pairs: Pairs


def is_finite(images: Tensor) -> Tensor:
    """Return, for each of `m x C x H x W` images, whether all its values are finite, `m` bool."""
    return images.isfinite().flatten(1).all(1)


def compare(sides: Sequence[Sides], instruments: Instruments) -> list[Comparison]:
    """Match guesses with private images and measure every pair.

    Guesses are clamped to [0, 1].

    Args:
        sides: What is compared; all images have one shape.
        instruments: What metrics need.
    """
    matchings = [_match(one, instruments) for one in sides]
    measured, reasons = _measure([one.pairs for one in matchings if one.found])
    comparisons, start = [], 0
    for matched, found, _ in matchings:
        n, stop = len(matched), start + len(found)
        values = {name: _spread(column[start:stop], found, n) for name, column in measured.items() if found}
        present = set(found)
        missed = tuple(index not in present for index in range(n))
        comparisons.append(Comparison(matched, missed, values, reasons if found else {}))
        start = stop
    return comparisons


def _match(sides: Sides, instruments: Instruments) -> _Matched:
    truth, guess = sides
    finite = is_finite(guess)
    guess = torch.nan_to_num(guess).clamp(0.0, 1.0)
    matched, usable = match(truth.images, guess, finite), finite.tolist()
    found = [index for index, partner in enumerate(matched) if partner is not None and usable[partner]]
    partners = [partner for index in found if (partner := matched[index]) is not None]
    pairs = Pairs(truth.images[found], guess[partners], tuple(truth.image_ids[i] for i in found), instruments)
    return _Matched(matched, found, pairs)


def _measure(pairs: Sequence[Pairs]) -> tuple[dict[str, Values], dict[str, str]]:
    """Return each metric's values of all pairs, one after the other, and why others cannot be had."""
    parts: dict[str, list[Values]] = {}
    reasons: dict[str, str] = {}
    for some in _chunks(pairs):
        for card in METRICS:
            if card.kind != "pair" or card.name in reasons:
                continue
            if card.on_request and card.name not in some.instruments.asked:
                reasons[card.name] = on_request(card.name).reason
                continue
            try:
                parts.setdefault(card.name, []).append(METRICS.implementation(card.name)(some).numpy())
            except NotApplicableError as error:
                reasons[card.name] = str(error)
                del parts[card.name]
    return {name: np.concatenate(values).astype(np.float64) for name, values in parts.items()}, reasons


def _chunks(pairs: Sequence[Pairs]) -> Iterator[Pairs]:
    """Join pairs and cut them anew, so that few operations measure all without holding much memory."""
    if not pairs:
        return
    truth, guess = (torch.cat([getattr(one, side) for one in pairs]) for side in ("truth", "guess"))
    names = tuple(name for one in pairs for name in one.image_ids)
    size = max(1, VALUES_AT_ONCE // truth[0].numel())
    for start in range(0, len(names), size):
        some = slice(start, start + size)
        yield Pairs(truth[some], guess[some], names[some], pairs[0].instruments)


def _spread(column: Values, found: list[int], n: int) -> Values:
    if len(found) == n:
        return column
    values = np.full(n, np.nan)
    values[found] = column
    return values


def _penalise(
    values: Values | None, missed: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], name: str, noise: Values
) -> Values:
    bound = worst(METRICS.get(name))
    penalty = noise if bound is None else np.where(np.isnan(noise), np.nan, bound)
    return np.where(missed, penalty, np.nan if values is None else values)
