"""Scoring of trials whose adversary sees global models: what their judge needs, from stores and data."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

from fl.seeds import Streams
from harness.execute.known import KNOWN_BYTES, observed
from harness.metrics.evaluator import Evaluator, load
from harness.metrics.evaluator_stage import NAME, unjudged
from harness.metrics.inversion_judge import InvertedTarget, Reference, score_inversion, score_unjudged
from harness.metrics.judge import TrialScore
from harness.metrics.pairs import Unavailable
from harness.metrics.recent import Recent
from harness.plan.stage_requests import judge_stages

if TYPE_CHECKING:
    from torch import Tensor

    from attacks.base import Reconstruction
    from fl.specs import TrialSpec
    from harness.execute.materials import Materials, Seen


class Inversions:
    """Judges what was made of classes; remembers evaluators, and how they see real images."""

    def __init__(self, materials: Materials) -> None:
        """Say what to compute with."""
        self._materials = materials
        self._evaluators: dict[str, Evaluator] = {}
        self._references: Recent[Hashable, Reference | Unavailable] = Recent(KNOWN_BYTES)

    def score(
        self, spec: TrialSpec, seen: Sequence[Seen], answers: Mapping[str, Reconstruction]
    ) -> TrialScore:
        """Score a trial, or say why no evaluator can.

        Raises:
            StoreError: If the evaluator is not in the store.
        """
        reference = self._reference(spec, seen)
        targets = [
            InvertedTarget(
                one.target_id,
                answers[one.target_id].images,
                answers[one.target_id].labels,
                label=-1 if one.label is None else one.label,
            )
            for one in seen
        ]
        streams = Streams(spec.seed)
        if isinstance(reference, Unavailable):
            return score_unjudged(targets, reference.reason, streams=streams)
        return score_inversion(targets, reference, streams=streams)

    def originals(self, spec: TrialSpec, score: TrialScore) -> dict[int, Tensor]:
        """Return the private image that each row names, by the row's position."""
        named = {
            position: str(row["image_id"])
            for position, row in enumerate(score.reconstructions)
            if row["image_id"] is not None
        }
        if not named:
            return {}
        part = self._materials.dataset(spec).part("private")
        return dict(zip(named, part.images(part.positions(named.values())), strict=True))

    def _reference(self, spec: TrialSpec, seen: Sequence[Seen]) -> Reference | Unavailable:
        """Return what all attacks on the same targets are measured against."""
        key = observed(spec)
        known = self._references.get(key)
        if known is None:
            known = self._refer(spec, [one.label for one in seen if one.label is not None])
            n_bytes = 0 if isinstance(known, Unavailable) else known.real.n_bytes
            self._references.put(key, known, n_bytes=n_bytes)
        return known

    def _refer(self, spec: TrialSpec, labels: Sequence[int]) -> Reference | Unavailable:
        if spec.data is None:
            return Unavailable("a recorded observation comes without images to train an evaluator on")
        dataset = self._materials.dataset(spec)
        reason = unjudged(dataset.info)
        if reason is not None:
            return Unavailable(reason)
        evaluator = self._evaluator(spec)
        unknown = sorted(set(labels) - evaluator.labels)
        if unknown:
            return Unavailable(
                f"the evaluator was trained on no image of class {unknown[0]}; see evaluation_labels:"
            )
        private = dataset.part("private")
        wanted, held = set(labels), self._materials.federation(spec).held_by_others
        positions = [p for p in held if int(private.labels[p]) in wanted]
        return Reference(
            evaluator,
            evaluator.see_part(private, positions),
            tuple(private.ids[p] for p in positions),
            dataset.part("test"),
            (dataset.info.channels, dataset.info.size, dataset.info.size),
        )

    def _evaluator(self, spec: TrialSpec) -> Evaluator:
        key = judge_stages(spec)[0].key
        if key not in self._evaluators:
            self._evaluators.clear()  # one data set after the other
            artifact = self._materials.judge_artifacts(spec)[NAME]
            self._evaluators[key] = load(artifact, self._materials.device)
        return self._evaluators[key]
