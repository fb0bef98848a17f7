"""The judge: reconstructions against private images, with floors, ceiling and controls, as results rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.metrics import METRICS
from harness.metrics.catalog import reconstruction_columns
from harness.metrics.comparison import Comparison, Sides, compare, is_finite
from harness.metrics.labels import as_labels, label_accuracy
from harness.metrics.pairs import NO_VGG, Embedding, Lpips, Unavailable
from harness.metrics.perceptual import Perceptual
from harness.metrics.scoresheet import Cell, ScoreSheet
from harness.metrics.statistics import Values
from harness.metrics.targets import BlindTarget, PrivateTarget, ScoredTarget
from harness.metrics.yardsticks import ScoreContext, Yardsticks, find_yardsticks, public_floors

PERCEPTUAL_BLOCK = 4
PERCEPTUAL_BYTES = 64 * 2**20
"""LPIPS embeddings that a judge remembers: some 500 images of 64 pixels."""
VGG_BYTES = 192 * 2**20
"""Those on VGG-16, where they are asked for: some 90 images of 64 pixels."""

Row = dict[str, Cell]


@dataclass(frozen=True)
class TrialScore:
    """A trial's leakage.

    Attributes:
        columns: Values of `catalog.trial_columns()`, all of them; None comes with an entry in `null_reasons`
            (but for `*_upsampled_to`, where it means that nothing was resized, and for what an evaluator
            measures, where updates were observed).
        reconstructions: One row per reconstructed image with `catalog.reconstruction_columns()`, by target,
            then by `reconstruction_index`.
    """

    columns: Row
    reconstructions: tuple[Row, ...]


class Judge:
    """Scores trials on the CPU: a score does not depend on what else is scored, or was before.

    It remembers the LPIPS embeddings of images, which do not depend on company either.
    """

    def __init__(
        self, perceptual: Perceptual | Unavailable, *, vgg: Perceptual | Unavailable = NO_VGG
    ) -> None:
        """Take LPIPS on AlexNet and VGG-16 (`perceptual.find_perceptual`), or why they cannot be had."""
        self._lpips = Lpips(_embedding(perceptual, PERCEPTUAL_BYTES), _embedding(vgg, VGG_BYTES))

    def yardsticks(self, targets: Sequence[PrivateTarget], *, context: ScoreContext) -> Yardsticks:
        """Measure what no attack changes about a trial's targets, for any number of attacks on them.

        Args:
            targets: At least one, in a fixed order; images of equal shape.
            context: What else is needed.
        """
        return find_yardsticks(targets, context, self._lpips_of(targets[0].truth.shape[1]))

    def score(
        self, targets: Sequence[ScoredTarget], *, context: ScoreContext, yardsticks: Yardsticks | None = None
    ) -> TrialScore:
        """Score a trial's targets.

        Args:
            targets: At least one, in a fixed order; images of equal shape.
            context: What else is needed.
            yardsticks: Those of the same targets and context; None: they are measured first.
        """
        known = yardsticks or self.yardsticks(targets, context=context)
        scored, shuffled = _compare(targets, known)
        sheet = ScoreSheet(context.streams)
        sheet.own(scored)
        sheet.floors(known.floors)
        sheet.missing(known.reasons)
        sheet.yardstick("ceiling", known.ceiling)
        sheet.yardstick("oracle_constant", known.oracle_constant)
        sheet.shuffled(shuffled)
        sheet.labels(
            _label_accuracies(targets, range(len(targets))),
            _label_accuracies(targets, known.partners) if known.partners else [],
        )
        sheet.sizes(targets[0].truth)
        sheet.gallery(context.gallery)
        sheet.regions(context.regions)
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
            sheet.floors(public_floors(context, self._lpips_of(context.public.images.shape[1])))
        rows = [row for target in targets for row in blind_rows(target)]
        return TrialScore(sheet.columns(), tuple(rows))

    def _lpips_of(self, channels: int) -> Lpips:
        if channels in (1, 3):
            return self._lpips
        wrong = Unavailable(f"LPIPS takes images with 1 or 3 channels, not {channels}")
        return Lpips(*(wrong if isinstance(one, Embedding) else one for one in self._lpips))


def _embedding(perceptual: Perceptual | Unavailable, max_bytes: int) -> Embedding | Unavailable:
    if isinstance(perceptual, Unavailable):
        return perceptual
    return Embedding(perceptual, block=PERCEPTUAL_BLOCK, max_bytes=max_bytes)


def _compare(targets: Sequence[ScoredTarget], known: Yardsticks) -> tuple[list[Comparison], list[Comparison]]:
    """Compare each target's reconstructions with its own private images, and with its partner's.

    Of the partner's images those that both targets share are left out.
    """
    own = [target.reconstruction.detach().cpu().float() for target in targets]
    sides = [Sides(truth, guess) for truth, guess in zip(known.truths, own, strict=True)]
    noise = [one.values for one in known.noise]
    for index, partner in enumerate(known.partners):
        other, kept = known.truths[partner].without(known.truths[index].image_ids)
        sides.append(Sides(other, own[index]))
        noise.append({name: values[kept] for name, values in noise[partner].items()})
    found = compare(sides, known.instruments)
    penalised = [one.penalised(values) for one, values in zip(found, noise, strict=True)]
    return penalised[: len(targets)], penalised[len(targets) :]


def _label_accuracies(targets: Sequence[ScoredTarget], partners: Sequence[int]) -> list[float]:
    """Return the label accuracy of each target that has labels, against the labels of its partner."""
    return [
        label_accuracy(targets[partner].labels, as_labels(target.recovered_labels))
        for target, partner in zip(targets, partners, strict=True)
        if target.recovered_labels is not None and targets[partner].labels
    ]


def _rows(target: ScoredTarget, comparison: Comparison) -> list[Row]:
    truth_of = {partner: index for index, partner in enumerate(comparison.matched) if partner is not None}
    rows = blind_rows(target)
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


def blind_rows(target: ScoredTarget | BlindTarget) -> list[Row]:
    """Return the rows of a target's reconstructions with what is known without the truth."""
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
