"""The judge of model inversion: images made of classes, as an evaluator sees them, as results rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from fl.errors import BenchError, NotApplicableError
from harness.metrics import METRICS
from harness.metrics.comparison import is_finite
from harness.metrics.controls import random_guess
from harness.metrics.inversion import Inversion, Views
from harness.metrics.inversion_accuracy import hits
from harness.metrics.judge import Row, TrialScore, blind_rows
from harness.metrics.pairs import euclidean
from harness.metrics.scoresheet import ScoreSheet
from harness.metrics.targets import BlindTarget

if TYPE_CHECKING:
    from fl.data.base import Part
    from fl.seeds import Streams
    from harness.metrics.evaluator import Evaluator

NO_TRUTH = "a class has no single true image to compare with; an evaluator judges what was made of it"
NO_FLOOR = "the floor of model inversion is an attack of its own: random_prior in the matrix"
NO_HELD_OUT = "the test part holds no images of the attacked classes"


@dataclass(frozen=True, kw_only=True)
class InvertedTarget(BlindTarget):
    """One class and what was made of it.

    Attributes:
        label: The class.
    """

    label: int


@dataclass(frozen=True)
class Reference:
    """What images made of some classes are measured against, whatever attack made them.

    Attributes:
        evaluator: The judge; trained to tell all of these classes.
        real: All private images of these classes that others than the attacker hold.
        image_ids: Their ids.
        held_out: The test part, for the ceiling.
        shape: C, H and W of an image.
    """

    evaluator: Evaluator
    real: Views
    image_ids: tuple[str, ...]
    held_out: Part
    shape: tuple[int, int, int]


def score_inversion(
    targets: Sequence[InvertedTarget], reference: Reference, *, streams: Streams
) -> TrialScore:
    """Score a trial's targets.

    Args:
        targets: At least one, in a fixed order.
        reference: What they are measured against.
        streams: The seed's streams; those used are `floor` (target), for images that are not finite, and
            `ceiling` (target).

    Raises:
        BenchError: If an image has not the shape of real ones.
    """
    _check(targets, reference)
    if not any(len(target.reconstruction) for target in targets):
        return score_unjudged(targets, "the attack made no images", streams=streams)
    sheet = ScoreSheet(streams)
    sheet.blind(NO_TRUTH, n_targets=len(targets))
    sheet.explain({"floor_*": NO_FLOOR})
    inversion = _inversion(targets, reference, streams)
    own, missing = measure(inversion)
    ceiling, without = _ceiling(targets, reference, inversion, streams)
    sheet.evaluated(own, ceiling)
    sheet.explain({METRICS.get(name).column: why for name, why in missing.items()})
    sheet.explain({f"ceiling_{METRICS.get(name).column}": why for name, why in without.items()})
    sheet.evaluator(reference.evaluator.accuracy)
    sheet.made(inversion.finite.tolist())
    return TrialScore(sheet.columns(), tuple(_rows(targets, reference, inversion)))


def score_unjudged(targets: Sequence[BlindTarget], reason: str, *, streams: Streams) -> TrialScore:
    """Describe model inversion that no evaluator can judge: every metric is null with `reason`."""
    sheet = ScoreSheet(streams)
    sheet.blind(reason, n_targets=len(targets))
    sheet.explain({"floor_*": NO_FLOOR})
    sheet.made([flag for target in targets for flag in is_finite(target.reconstruction).tolist()])
    return TrialScore(sheet.columns(), tuple(row for target in targets for row in blind_rows(target)))


def measure(inversion: Inversion) -> tuple[dict[str, float], dict[str, str]]:
    """Return what an evaluator measures, by metric, and why other metrics cannot be had."""
    found: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for card in METRICS:
        if card.evaluated:
            try:
                found[card.name] = METRICS.implementation(card.name)(inversion)
            except NotApplicableError as error:
                reasons[card.name] = str(error)
    return found, reasons


def _check(targets: Sequence[InvertedTarget], reference: Reference) -> None:
    for target in targets:
        got = tuple(target.reconstruction.shape[1:])
        if got != reference.shape:
            expected, found = (" x ".join(map(str, shape)) for shape in (reference.shape, got))
            raise BenchError(
                f"target {target.target_id}: expected reconstructions of shape {expected}, got {found}"
            )


def _inversion(targets: Sequence[InvertedTarget], reference: Reference, streams: Streams) -> Inversion:
    """Return what was made, as the evaluator sees it; noise stands in for what is not finite."""
    made = torch.cat([target.reconstruction for target in targets]).detach().cpu().float()
    finite = is_finite(made)
    if not finite.all():
        noise = [random_guess(t.reconstruction, streams.torch("floor", target=t.target_id)) for t in targets]
        made = torch.where(finite[:, None, None, None], made, torch.cat(noise))
    images = made.clamp(0.0, 1.0)
    labels = torch.tensor([target.label for target in targets for _ in target.reconstruction])
    return Inversion(images, finite, reference.evaluator.see(images, labels), reference.real)


def _ceiling(
    targets: Sequence[InvertedTarget], reference: Reference, inversion: Inversion, streams: Streams
) -> tuple[dict[str, float], dict[str, str]]:
    """Return what as many real held-out images of the same classes score, and why others are missing.

    Where a class has fewer held-out images, they are all that stand for it.
    """
    positions = [position for target in targets for position in _held_out(target, reference, streams)]
    if not positions:
        return {}, dict.fromkeys((card.name for card in METRICS if card.evaluated), NO_HELD_OUT)
    images = reference.held_out.images(positions)
    views = reference.evaluator.see(images, reference.held_out.labels[positions])
    finite = torch.ones(len(positions), dtype=torch.bool)
    return measure(replace(inversion, images=images, finite=finite, made=views))


def _held_out(target: InvertedTarget, reference: Reference, streams: Streams) -> list[int]:
    candidates = (reference.held_out.labels == target.label).nonzero()[:, 0].numpy()
    drawn = streams.numpy("ceiling", target=target.target_id).permutation(candidates)
    chosen: list[int] = drawn[: len(target.reconstruction)].tolist()
    return chosen


def _rows(targets: Sequence[InvertedTarget], reference: Reference, inversion: Inversion) -> list[Row]:
    rows = [row for target in targets for row in blind_rows(target)]
    made, hit = inversion.made, hits(inversion).tolist()
    confidence, named = made.probabilities.max(1)
    nearest = _nearest(inversion)
    for position, row in enumerate(rows):
        row |= {"true_label": json.dumps(int(made.labels[position])), "hit": hit[position]}
        if row["finite"]:
            row |= {
                "image_id": reference.image_ids[nearest[position]],
                "evaluator_label": int(named[position]),
                "evaluator_confidence": float(confidence[position]),
            }
    return rows


def _nearest(inversion: Inversion) -> list[int]:
    """Return, for each image made, the position of the nearest real one of its class, by features."""
    made, real = inversion.made, inversion.real
    nearest = torch.zeros(len(made), dtype=torch.int64)
    for label in inversion.labels:
        candidates = (real.labels == label).nonzero()[:, 0]
        found = euclidean(made.of(label), real.of(label)).argmin(1)
        nearest[made.labels == label] = candidates[found]
    places: list[int] = nearest.tolist()
    return places
