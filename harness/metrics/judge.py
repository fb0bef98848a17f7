"""The judge: reconstructions against private images, with floors, ceiling and controls, as results rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fl.errors import BenchError
from fl.seeds import Streams
from fl.types import PublicData
from harness.metrics import METRICS
from harness.metrics.catalog import reconstruction_columns
from harness.metrics.comparison import Comparison, Truth, compare, is_finite
from harness.metrics.controls import (
    MEAN_IMAGE,
    RANDOM_GUESS,
    derangement,
    mean_image,
    oracle_constant,
    random_guess,
)
from harness.metrics.labels import Label, as_labels, label_accuracy
from harness.metrics.pairs import Embedding, Gallery, Instruments, Unavailable
from harness.metrics.perceptual import Perceptual
from harness.metrics.scoresheet import Cell, ScoreSheet
from harness.metrics.statistics import Values

BLIND_IMAGES = 16
"""Public images that stand in for unknown private ones when floors are all that can be measured."""

Row = dict[str, Cell]


@dataclass(frozen=True)
class ScoredTarget:
    """One target with both sides of the wall.

    Attributes:
        target_id: The target.
        truth: The n private images, `n x C x H x W` in [0, 1]; n may be 0 (an empty Poisson batch).
        image_ids: Their ids.
        labels: Their labels.
        reconstruction: What the attack made, `m x C x H x W`.
        recovered_labels: Labels it recovered, `m` (or `m x outputs`), or None.
        protected: The batch as the client trained on it, where the defense changed it, else None.

    Raises:
        BenchError: If reconstructions do not have the shape of the private images.
    """

    target_id: str
    truth: Tensor
    image_ids: tuple[str, ...]
    labels: tuple[Label, ...]
    reconstruction: Tensor
    recovered_labels: Tensor | None = None
    protected: Tensor | None = None

    def __post_init__(self) -> None:
        assert len(self.truth) == len(self.image_ids) == len(self.labels)
        if self.reconstruction.shape[1:] != self.truth.shape[1:]:
            expected, got = (" x ".join(map(str, x.shape[1:])) for x in (self.truth, self.reconstruction))
            raise BenchError(
                f"target {self.target_id}: expected reconstructions of shape {expected}, got {got}"
            )


@dataclass(frozen=True)
class BlindTarget:
    """A target whose truth is not known or has no pixels.

    Attributes:
        target_id: The target.
        reconstruction: What the attack made, `m x C x H x W`.
        recovered_labels: Labels it recovered, `m` (or `m x outputs`), or None.
    """

    target_id: str
    reconstruction: Tensor
    recovered_labels: Tensor | None = None


@dataclass(frozen=True)
class ScoreContext:
    """What scoring a trial needs besides its targets.

    Attributes:
        streams: The seed's streams; those used are `floor` (target), `floor_images`, `shuffle`, `bootstrap`.
        public: The public part of the data, for the mean image, whether or not the attacker has it; or None.
        gallery: The seed's gallery, or why there is none.
        features: The observed model's features (`features.penultimate_features`), or why there are none.
    """

    streams: Streams
    public: PublicData | None
    gallery: Gallery | Unavailable
    features: Callable[[Tensor], Tensor] | Unavailable


@dataclass(frozen=True)
class TrialScore:
    """A trial's leakage.

    Attributes:
        columns: Values of `catalog.trial_columns()`, all of them; None comes with an entry in `null_reasons`
            (but for `*_upsampled_to`, where it means that nothing was resized).
        reconstructions: One row per reconstructed image with `catalog.reconstruction_columns()`, by target,
            then by `reconstruction_index`.
    """

    columns: Row
    reconstructions: tuple[Row, ...]


class Judge:
    """Scores trials on the CPU, each on its own: a score does not depend on what else is scored."""

    def __init__(self, perceptual: Perceptual | Unavailable) -> None:
        """Take LPIPS (`perceptual.find_perceptual`), or why it cannot be had."""
        self._perceptual = perceptual

    def score(self, targets: Sequence[ScoredTarget], *, context: ScoreContext) -> TrialScore:
        """Score a trial's targets.

        Args:
            targets: At least one, in a fixed order; images of equal shape.
            context: What else is needed.
        """
        sheet = ScoreSheet(context.streams)
        truths = [Truth(target.truth, target.image_ids) for target in targets]
        own = [target.reconstruction.detach().cpu().float() for target in targets]
        ceilings = [target.truth if target.protected is None else target.protected for target in targets]
        constants = [oracle_constant(truth.images) for truth in truths]
        noises = _noise(targets, context.streams)
        means = _means(truths, context.public)
        instruments = self._instruments(context, targets[0].truth.shape[1])
        _prepare(instruments, [*(t.images for t in truths), *own, *ceilings, *constants, *noises, *means])

        guessed = [compare(t, g, instruments) for t, g in zip(truths, noises, strict=True)]
        floors = {RANDOM_GUESS: guessed}
        if means:
            floors[MEAN_IMAGE] = [compare(t, g, instruments) for t, g in zip(truths, means, strict=True)]

        def against(guesses: Sequence[Tensor]) -> list[Comparison]:
            sides = zip(truths, guesses, guessed, strict=True)
            return [compare(truth, guess, instruments, noise=noise.values) for truth, guess, noise in sides]

        scored = against(own)
        sheet.own(scored)
        sheet.floors(floors)
        sheet.yardstick("ceiling", against(ceilings))
        sheet.yardstick("oracle_constant", against(constants))
        partners = _partners(targets, context.streams)
        sheet.shuffled(_shuffled(truths, own, guessed, partners, instruments))
        sheet.labels(
            _label_accuracies(targets, range(len(targets))),
            _label_accuracies(targets, partners) if partners else [],
        )
        sheet.sizes(targets[0].truth)
        sheet.gallery(context.gallery)
        rows = [row for target, c in zip(targets, scored, strict=True) for row in _rows(target, c)]
        return TrialScore(sheet.columns(), tuple(rows))

    def score_blind(
        self, targets: Sequence[BlindTarget], *, context: ScoreContext, reason: str
    ) -> TrialScore:
        """Describe targets whose truth cannot be compared with: every metric is null with `reason`.

        Floors are what they score on average against images of the public part; without one they are null.
        """
        sheet = ScoreSheet(context.streams)
        sheet.blind(reason, n_targets=len(targets))
        if context.public is not None and len(context.public.images):
            sheet.floors(self._public_floors(context.public, context))
        rows = [row for target in targets for row in _blind_rows(target)]
        return TrialScore(sheet.columns(), tuple(rows))

    def _public_floors(self, public: PublicData, context: ScoreContext) -> dict[str, list[Comparison]]:
        generator = context.streams.numpy("floor_images")
        chosen = sorted(generator.permutation(len(public.images))[:BLIND_IMAGES].tolist())
        truth = Truth(public.images[chosen], tuple(f"public-{index}" for index in chosen))
        instruments = self._instruments(context, truth.images.shape[1])
        noise = random_guess(truth.images, context.streams.torch("floor", target="public"))
        mean = mean_image(truth.images, public.mean_image)
        _prepare(instruments, [truth.images, noise, mean])
        guesses = {RANDOM_GUESS: noise, MEAN_IMAGE: mean}
        return {name: [compare(truth, guess, instruments)] for name, guess in guesses.items()}

    def _instruments(self, context: ScoreContext, channels: int) -> Instruments:
        perceptual: Embedding | Unavailable
        if isinstance(self._perceptual, Unavailable):
            perceptual = self._perceptual
        elif channels not in (1, 3):
            perceptual = Unavailable(f"LPIPS takes images with 1 or 3 channels, not {channels}")
        else:
            perceptual = Embedding(self._perceptual)
        features = context.features
        return Instruments(
            perceptual,
            features if isinstance(features, Unavailable) else Embedding(features),
            context.gallery,
        )


def _noise(targets: Sequence[ScoredTarget], streams: Streams) -> list[Tensor]:
    return [random_guess(t.truth, streams.torch("floor", target=t.target_id)) for t in targets]


def _means(truths: Sequence[Truth], public: PublicData | None) -> list[Tensor]:
    return [] if public is None else [mean_image(truth.images, public.mean_image) for truth in truths]


def _prepare(instruments: Instruments, sets: Sequence[Tensor]) -> None:
    """Embed all images that will be compared, in as few blocks as they fit."""
    images = torch.cat([images[is_finite(images)] for images in sets]).clamp(0.0, 1.0)
    for instrument in (instruments.perceptual, instruments.features):
        if isinstance(instrument, Embedding) and len(images):
            instrument(images)


def _partners(targets: Sequence[ScoredTarget], streams: Streams) -> tuple[int, ...]:
    if len(targets) < 2:
        return ()
    return derangement([tuple(sorted(t.labels)) for t in targets], streams.numpy("shuffle"))


def _shuffled(
    truths: Sequence[Truth],
    own: Sequence[Tensor],
    noises: Sequence[Comparison],
    partners: Sequence[int],
    instruments: Instruments,
) -> list[Comparison]:
    """Compare each target's reconstructions with its partner's images, but for those that they share."""
    compared = []
    for index, partner in enumerate(partners):
        other, kept = truths[partner].without(truths[index].image_ids)
        noise = {name: values[kept] for name, values in noises[partner].values.items()}
        compared.append(compare(other, own[index], instruments, noise=noise))
    return compared


def _label_accuracies(targets: Sequence[ScoredTarget], partners: Sequence[int]) -> list[float]:
    """Return the label accuracy of each target that has labels, against the labels of its partner."""
    return [
        label_accuracy(targets[partner].labels, as_labels(target.recovered_labels))
        for target, partner in zip(targets, partners, strict=True)
        if target.recovered_labels is not None and targets[partner].labels
    ]


def _rows(target: ScoredTarget, comparison: Comparison) -> list[Row]:
    truth_of = {partner: index for index, partner in enumerate(comparison.matched) if partner is not None}
    rows = _blind_rows(target)
    for position, index in truth_of.items():
        found: Row = {
            "matched_index": index,
            "image_id": target.image_ids[index],
            "true_label": json.dumps(target.labels[index]),
        }
        rows[position] |= found | _at(comparison.values, index)
    return rows


def _at(values: Mapping[str, Values], index: int) -> Row:
    numbers = {METRICS.get(name).column: float(column[index]) for name, column in values.items()}
    return {name: number for name, number in numbers.items() if not math.isnan(number)}


def _blind_rows(target: ScoredTarget | BlindTarget) -> list[Row]:
    finite = is_finite(target.reconstruction).tolist()
    labels = () if target.recovered_labels is None else as_labels(target.recovered_labels)
    empty: Row = dict.fromkeys((column.name for column in reconstruction_columns()), None)
    return [
        empty
        | {
            "target_id": target.target_id,
            "reconstruction_index": position,
            "finite": finite[position],
            "label": json.dumps(labels[position]) if position < len(labels) else None,
        }
        for position in range(len(finite))
    ]
