"""From reconstructions to a trial's result: the one place where an attack's output meets the secret."""

from __future__ import annotations

import platform
import socket
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import torch

import fl.data
from attacks.catalog import ENGINE_VERSION
from attacks.engine.table import table_digest
from fl.seeds import Streams
from fl.specs import digest
from harness.execute.inversions import Inversions
from harness.execute.known import KNOWN_BYTES, Known, observed
from harness.execute.pictures import Pictures
from harness.execute.results import Row, TrialResult
from harness.metrics.comparison import Truth
from harness.metrics.features import penultimate_features
from harness.metrics.identification import draw_gallery
from harness.metrics.judge import Judge, TrialScore
from harness.metrics.networks import VGG16
from harness.metrics.pairs import NO_VGG, Gallery, Unavailable
from harness.metrics.perceptual import find_perceptual
from harness.metrics.recent import Recent
from harness.metrics.regions import Labelled, Regions, find_regions
from harness.metrics.targets import BlindTarget, PrivateTarget, ScoredTarget
from harness.metrics.yardsticks import ScoreContext

if TYPE_CHECKING:
    from attacks.base import Reconstruction, Snapshot
    from fl.data.base import Dataset
    from fl.specs import TrialSpec
    from harness.execute.materials import Materials, Seen
    from harness.execute.work import Trial, Usage


class Scorer:
    """Judges trials and keeps private pictures private."""

    def __init__(self, materials: Materials, private_uri: str, metrics: Collection[str] = ()) -> None:
        """Say what to compute with, where private pictures go, and what is measured on request."""
        self._materials = materials
        self._asked = frozenset(metrics)
        self._pictures = Pictures(private_uri)
        self._known: Recent[Hashable, Known] = Recent(KNOWN_BYTES)
        self._inversions = Inversions(materials)

    @cached_property
    def _judge(self) -> Judge:
        return Judge(_perceptual(), vgg=_perceptual_vgg() if "lpips_vgg" in self._asked else NO_VGG)

    def result(
        self,
        trial: Trial,
        seen: Sequence[Seen],
        answers: Mapping[str, Reconstruction],
        snapshots: Mapping[str, Sequence[Snapshot]],
        usage: Usage,
    ) -> TrialResult:
        """Score a trial whose targets are all answered (those that a client refused have no answer)."""
        attacked = [s for s in seen if not s.refused]
        public = self._is_public(trial.spec)
        truths: Mapping[str, Truth] = {}
        if _sees_models(attacked):
            score = self._inversions.score(trial.spec, attacked, answers)
            originals = self._inversions.originals(trial.spec, score) if public else {}
        else:
            known = self._know(trial.spec, attacked)
            score, truths = self._score(attacked, answers, known), known.truths
            originals = _originals(score, truths) if public else {}
        return TrialResult(
            columns={
                **score.columns,
                "gradient_evaluations": sum(a.gradient_evaluations for a in answers.values()),
                "lane_iterations": sum(a.lane_iterations for a in answers.values()),
                "refused_targets": len(seen) - len(attacked),
                "update_domain": _domain(seen),
                "patient_overlap": self._patient_overlap(trial.spec),
                **_recorded_round(trial.spec, seen),
                **provenance(self._materials.device),
                **_engine(answers.values()),
            },
            reconstructions=tuple(
                self._pictures.reconstructions(trial.trial_id, score, answers, originals, public=public)
            ),
            traces=tuple(self._pictures.traces(trial.trial_id, snapshots, truths, public=public)),
            usage=usage,
        )

    def _score(self, seen: Sequence[Seen], answers: Mapping[str, Reconstruction], known: Known) -> TrialScore:
        if isinstance(known.targets, Unavailable):
            blind = [
                BlindTarget(s.target_id, answers[s.target_id].images, answers[s.target_id].labels)
                for s in seen
            ]
            return self._judge.score_blind(blind, context=known.context, reason=known.targets.reason)
        scored = [_scored(target, answers[target.target_id]) for target in known.targets]
        return self._judge.score(scored, context=known.context, yardsticks=known.yardsticks)

    def _know(self, spec: TrialSpec, seen: Sequence[Seen]) -> Known:
        """Return what all attacks on the targets have in common."""
        key = observed(spec)
        known = self._known.get(key)
        if known is None:
            known = self._learn(spec, seen)
            self._known.put(key, known, n_bytes=known.n_bytes)
        return known

    def _learn(self, spec: TrialSpec, seen: Sequence[Seen]) -> Known:
        targets = self._targets(spec, seen)
        context = self._context(spec, seen, targets)
        sent = seen[0].observation.sent.tensors if seen else {}
        yardsticks = None
        if not isinstance(targets, Unavailable):
            yardsticks = self._judge.yardsticks(targets, context=context)
        return Known(targets, context, yardsticks, sum(tensor.nbytes for tensor in sent.values()))

    def _targets(self, spec: TrialSpec, seen: Sequence[Seen]) -> tuple[PrivateTarget, ...] | Unavailable:
        """Return what lies behind the targets, or why it cannot be compared with."""
        truth = self._truth(spec, seen)
        reason = _blind_reason(seen, truth)
        if reason is not None:
            return Unavailable(reason)
        assert truth is not None
        part = truth.part("private")
        targets = []
        for one in seen:
            assert one.secret is not None
            ids = one.secret.image_ids
            images = part.images(part.positions(ids)) if ids else torch.empty(0, *one.observation.image.shape)
            targets.append(PrivateTarget(one.target_id, images, ids, one.secret.labels, one.protected))
        return tuple(targets)

    def _truth(self, spec: TrialSpec, seen: Sequence[Seen]) -> Dataset | None:
        """Return the data set that the secrets refer to: the trial's own, or a recorded one's `public`."""
        if spec.data is not None:
            return self._materials.dataset(spec)
        if spec.public is None:
            return None
        dataset = fl.data.load(spec.public)
        known = all(s.secret and s.secret.fingerprint == dataset.info.fingerprint for s in seen)
        return dataset if known else None

    def _context(
        self, spec: TrialSpec, seen: Sequence[Seen], targets: Sequence[PrivateTarget] | Unavailable
    ) -> ScoreContext:
        streams = Streams(spec.seed)
        gallery: Gallery | Unavailable = Unavailable("a recorded observation comes without a gallery")
        nothing = Unavailable("nothing was observed: every client refused")
        features: Any = nothing
        regions: Regions | Unavailable = nothing
        if seen:
            sent = seen[0].observation.sent
            model, image = self._materials.build(sent), sent.architecture.image
            features = penultimate_features(model, image)
            regions = self._regions(spec, seen, targets, model)
        if spec.data is not None:
            gallery = self._gallery(spec, seen, streams)
        public = self._materials.judge_public(spec)
        return ScoreContext(streams, public, gallery, features, regions, self._asked)

    def _regions(
        self,
        spec: TrialSpec,
        seen: Sequence[Seen],
        targets: Sequence[PrivateTarget] | Unavailable,
        model: torch.nn.Module,
    ) -> Regions | Unavailable:
        """Return where the private images are sensitive: marked by the data set, else what the model sees."""
        if isinstance(targets, Unavailable):
            return Unavailable(targets.reason)
        dataset = self._truth(spec, seen)
        assert dataset is not None
        labelled = {
            image_id: Labelled(image, label)
            for target in targets
            for image_id, image, label in zip(target.image_ids, target.truth, target.labels, strict=True)
        }
        return find_regions(dataset.part("private"), labelled, model, seen[0].observation.image)

    def _gallery(self, spec: TrialSpec, seen: Sequence[Seen], streams: Streams) -> Gallery:
        part = self._materials.dataset(spec).part("private")
        own = [image_id for s in seen if s.secret for image_id in s.secret.image_ids]
        ids = draw_gallery(part.ids, own, streams.numpy("gallery"))
        positions, holders = part.positions(ids), self._materials.federation(spec).holders
        return Gallery(ids, part.images(positions), tuple(map(holders.get, positions)))

    def _patient_overlap(self, spec: TrialSpec) -> bool | None:
        return None if spec.federation is None else self._materials.federation(spec).patient_overlap

    def _is_public(self, spec: TrialSpec) -> bool:
        return spec.data is not None and self._materials.dataset(spec).info.public


def _scored(target: PrivateTarget, answer: Reconstruction) -> ScoredTarget:
    return ScoredTarget(
        target.target_id,
        target.truth,
        target.image_ids,
        target.labels,
        target.protected,
        reconstruction=answer.images,
        recovered_labels=answer.labels,
    )


def _sees_models(seen: Sequence[Seen]) -> bool:
    """Whether the adversary sees global models, so that classes are what it is after."""
    return bool(seen) and seen[0].observation.kind == "global_model"


def _originals(score: TrialScore, truths: Mapping[str, Truth]) -> dict[int, torch.Tensor]:
    """Return the private image that each row was matched with, by the row's position."""
    originals: dict[int, torch.Tensor] = {}
    for position, row in enumerate(score.reconstructions):
        target, index = str(row["target_id"]), row["matched_index"]
        if target in truths and index is not None:
            originals[position] = truths[target].images[int(str(index))]
    return originals


def _blind_reason(seen: Sequence[Seen], truth: Dataset | None) -> str | None:
    if not seen:
        return "every observed client refused to train on the model it received"
    if any(s.secret is None for s in seen):
        return "the recorded observation holds no secret to compare with"
    return None if truth is not None else "the secret's data set is not the one named by public"


def _domain(seen: Sequence[Seen]) -> str | None:
    updates = [view.update for s in seen for view in s.observation.history if view.update is not None]
    return updates[0].kind if updates else None


def _recorded_round(spec: TrialSpec, seen: Sequence[Seen]) -> Row:
    """Return what only the file of a recorded observation knows, as columns."""
    if spec.recorded is None:
        return {}
    observation = seen[0].observation
    return {"round": observation.history[-1].round, "observe_kind": observation.kind}


def _engine(answers: Iterable[Reconstruction]) -> Row:
    """Return how the reconstructions were computed, as columns: alike for all targets of a trial."""
    answer = next(iter(answers), None)
    if answer is None:
        return {}
    return {
        "engine": answer.formulation,
        "engine_table": table_digest() if answer.tabled else None,
        "lane_width": answer.lane_width,
    }


@cache
def _perceptual() -> Any:
    return find_perceptual()


@cache
def _perceptual_vgg() -> Any:
    return find_perceptual(VGG16)


@cache
def provenance(device: torch.device) -> Row:
    """Return what bits depend on besides the spec, as columns."""
    from harness.execute.lane import cpu_identity

    on_gpu = device.type == "cuda"
    return {
        "device": device.type,
        "device_type": torch.cuda.get_device_name(device) if on_gpu else cpu_identity(),
        "host": digest(socket.gethostname())[:12],
        "python_version": platform.python_version(),
        "torch_version": torch.__version__,
        "engine_version": ENGINE_VERSION,
    }
