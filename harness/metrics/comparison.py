"""A set of guesses against a target's private images: matched once, then measured pair by pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fl.errors import NotApplicableError
from harness.metrics import METRICS
from harness.metrics.catalog import worst
from harness.metrics.matching import match
from harness.metrics.pairs import Instruments, Pairs
from harness.metrics.statistics import Values


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


@dataclass(frozen=True)
class Comparison:
    """What guesses score against a target's n private images.

    Attributes:
        matched: For each private image, the position of its guess, or None if too few were made.
        missed: For each private image, whether it has no finite guess.
        values: By metric, one value per private image; NaN where the metric is undefined.
        reasons: By metric that cannot be had, why.
    """

    matched: tuple[int | None, ...]
    missed: tuple[bool, ...]
    values: Mapping[str, Values]
    reasons: Mapping[str, str]


def is_finite(images: Tensor) -> Tensor:
    """Return, for each of `m x C x H x W` images, whether all its values are finite, `m` bool."""
    return images.isfinite().flatten(1).all(1)


def compare(
    truth: Truth, guess: Tensor, instruments: Instruments, *, noise: Mapping[str, Values] | None = None
) -> Comparison:
    """Match guesses with private images and measure every pair.

    Guesses are clamped to [0, 1]. A private image whose guess is missing or not finite was not recovered: it
    gets the value that leaks least, and where a metric has none, the one that random noise scores.

    Args:
        truth: The n private images.
        guess: `m x C x H x W`.
        instruments: What metrics need.
        noise: Values of random noise against the same images; None if every guess is finite and m >= n.
    """
    finite = is_finite(guess)
    guess = torch.nan_to_num(guess).clamp(0.0, 1.0)
    matched = match(truth.images, guess, finite)
    found = [index for index, partner in enumerate(matched) if partner is not None and finite[partner]]
    partners = [partner for index in found if (partner := matched[index]) is not None]
    pairs = Pairs(truth.images[found], guess[partners], tuple(truth.image_ids[i] for i in found), instruments)
    measured, reasons = _measure(pairs) if found else ({}, {})
    values = {name: _spread(column, found, len(matched)) for name, column in measured.items()}
    missed = np.isin(np.arange(len(matched)), found, invert=True)
    if noise is not None and missed.any():
        values = {name: _penalise(values.get(name), missed, name, noise[name]) for name in noise}
    return Comparison(matched, tuple(missed.tolist()), values, reasons)


def _measure(pairs: Pairs) -> tuple[dict[str, Values], dict[str, str]]:
    values: dict[str, Values] = {}
    reasons: dict[str, str] = {}
    for card in METRICS:
        if card.kind != "pair":
            continue
        try:
            values[card.name] = METRICS.implementation(card.name)(pairs).numpy()
        except NotApplicableError as error:
            reasons[card.name] = str(error)
    return values, reasons


def _spread(column: Values, found: list[int], n: int) -> Values:
    values = np.full(n, np.nan)
    values[found] = column
    return values


def _penalise(
    values: Values | None, missed: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], name: str, noise: Values
) -> Values:
    bound = worst(METRICS.get(name))
    penalty = noise if bound is None else np.where(np.isnan(noise), np.nan, bound)
    return np.where(missed, penalty, np.nan if values is None else values)
