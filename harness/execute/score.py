"""From reconstructions to a trial's result: the one place where an attack's output meets the secret."""

from __future__ import annotations

import json
import platform
import socket
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

import fl.data
from attacks.catalog import ENGINE_VERSION
from attacks.engine.table import table_digest
from fl.seeds import Streams
from fl.specs import digest
from harness.execute.results import Row, TrialResult
from harness.metrics import png
from harness.metrics.closeness import closeness
from harness.metrics.features import penultimate_features
from harness.metrics.identification import draw_gallery
from harness.metrics.judge import BlindTarget, Judge, ScoreContext, ScoredTarget, TrialScore
from harness.metrics.pairs import Gallery, Unavailable
from harness.metrics.perceptual import find_perceptual
from harness.store.storage import Storage, open_storage

if TYPE_CHECKING:
    from attacks.base import Reconstruction, Snapshot
    from fl.data.base import Dataset
    from fl.specs import TrialSpec
    from harness.execute.materials import Materials, Seen
    from harness.execute.work import Trial, Usage


class Scorer:
    """Judges trials and keeps private pictures private."""

    def __init__(self, materials: Materials, private_uri: str) -> None:
        self._materials = materials
        self._private: Storage = open_storage(private_uri, private=True)

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
        targets = self._targets(trial.spec, attacked, answers)
        score = self._score(trial.spec, attacked, answers, targets)
        truths = {} if isinstance(targets, Unavailable) else {t.target_id: t.truth for t in targets}
        public = self._is_public(trial.spec)
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
            reconstructions=tuple(self._pictured(trial, score, answers, truths, public=public)),
            traces=tuple(self._traces(trial, snapshots, truths, public=public)),
            usage=usage,
        )

    def _score(
        self,
        spec: TrialSpec,
        seen: Sequence[Seen],
        answers: Mapping[str, Reconstruction],
        targets: Sequence[ScoredTarget] | Unavailable,
    ) -> TrialScore:
        judge = Judge(_perceptual())
        context = self._context(spec, seen)
        if not isinstance(targets, Unavailable):
            return judge.score(targets, context=context)
        blind = [
            BlindTarget(s.target_id, answers[s.target_id].images, answers[s.target_id].labels) for s in seen
        ]
        return judge.score_blind(blind, context=context, reason=targets.reason)

    def _targets(
        self, spec: TrialSpec, seen: Sequence[Seen], answers: Mapping[str, Reconstruction]
    ) -> list[ScoredTarget] | Unavailable:
        """Return both sides of the wall, target by target, or why the truth cannot be compared with."""
        truth = self._truth(spec, seen)
        reason = _blind_reason(seen, truth)
        if reason is not None:
            return Unavailable(reason)
        assert truth is not None
        part = truth.part("private")
        targets = []
        for one in seen:
            assert one.secret is not None
            answer, ids = answers[one.target_id], one.secret.image_ids
            images = part.images(part.positions(ids)) if ids else torch.empty(0, *one.observation.image.shape)
            targets.append(
                ScoredTarget(
                    one.target_id, images, ids, one.secret.labels, answer.images, answer.labels, one.protected
                )
            )
        return targets

    def _truth(self, spec: TrialSpec, seen: Sequence[Seen]) -> Dataset | None:
        """Return the data set that the secrets refer to: the trial's own, or a recorded one's `public`."""
        if spec.data is not None:
            return self._materials.dataset(spec)
        if spec.public is None:
            return None
        dataset = fl.data.load(spec.public)
        known = all(s.secret and s.secret.fingerprint == dataset.info.fingerprint for s in seen)
        return dataset if known else None

    def _context(self, spec: TrialSpec, seen: Sequence[Seen]) -> ScoreContext:
        streams = Streams(spec.seed)
        gallery: Gallery | Unavailable = Unavailable("a recorded observation comes without a gallery")
        features: Any = Unavailable("nothing was observed: every client refused")
        if seen:
            sent = seen[0].observation.sent
            features = penultimate_features(self._materials.build(sent), sent.architecture.image)
        if spec.data is not None:
            gallery = self._gallery(spec, seen, streams)
        return ScoreContext(streams, self._materials.judge_public(spec), gallery, features)

    def _gallery(self, spec: TrialSpec, seen: Sequence[Seen], streams: Streams) -> Gallery:
        part = self._materials.dataset(spec).part("private")
        own = [image_id for s in seen if s.secret for image_id in s.secret.image_ids]
        ids = draw_gallery(part.ids, own, streams.numpy("gallery"))
        return Gallery(ids, part.images(part.positions(ids)))

    def _patient_overlap(self, spec: TrialSpec) -> bool | None:
        return None if spec.federation is None else self._materials.federation(spec).patient_overlap

    def _is_public(self, spec: TrialSpec) -> bool:
        return spec.data is not None and self._materials.dataset(spec).info.public

    def _pictured(
        self,
        trial: Trial,
        score: TrialScore,
        answers: Mapping[str, Reconstruction],
        truths: Mapping[str, torch.Tensor],
        *,
        public: bool,
    ) -> list[Row]:
        rows: list[Row] = []
        for row in score.reconstructions:
            target, index = str(row["target_id"]), int(str(row["reconstruction_index"]))
            image = answers[target].images[index]
            name = f"{trial.trial_id}/{target}-{index}.png"
            picture, original = self._picture(image, name, public=public), None
            if public and target in truths and row["matched_index"] is not None:
                truth = truths[target][int(str(row["matched_index"]))]
                original = {"bytes": png.encode(truth), "path": None}
            rows.append({**row, "png": picture, "original": original})
        return rows

    def _traces(
        self,
        trial: Trial,
        snapshots: Mapping[str, Sequence[Snapshot]],
        truths: Mapping[str, torch.Tensor],
        *,
        public: bool,
    ) -> list[Row]:
        rows: list[Row] = []
        for target, taken in snapshots.items():
            for shot in taken:
                row: Row = {
                    "target_id": target,
                    "iteration": shot.iteration,
                    "restart": shot.restart,
                    "objective": json.dumps(dict(shot.objective), sort_keys=True),
                    "best": shot.best,
                    "png": None,
                }
                if shot.images is not None and len(shot.images):
                    name = f"{trial.trial_id}/{target}-trace-{shot.iteration}.png"
                    row["png"] = self._picture(_strip(shot.images), name, public=public)
                    truth = truths.get(target)
                    if truth is not None and len(truth) and truth.shape[1:] == shot.images.shape[1:]:
                        row |= closeness(truth, shot.images)._asdict()
                rows.append(row)
        return rows

    def _picture(self, image: torch.Tensor, name: str, *, public: bool) -> Row | None:
        if image.shape[0] not in (1, 3):
            return None
        content = png.encode(image)
        if public:
            return {"bytes": content, "path": None}
        self._private.write(f"images/{name}", content)
        return {"bytes": None, "path": f"private/images/{name}"}


def _strip(images: torch.Tensor) -> torch.Tensor:
    """Put `n x C x H x W` side by side as `C x H x nW`."""
    return torch.cat(list(images), dim=-1)


def _blind_reason(seen: Sequence[Seen], truth: Dataset | None) -> str | None:
    if not seen:
        return "every observed client refused to train on the model it received"
    if seen[0].observation.kind == "global_model":
        return "model inversion is judged by an evaluator, and none was asked for"
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
        "engine_table": None if answer.formulation == "reference" else table_digest(),
        "lane_width": answer.lane_width,
    }


@cache
def _perceptual() -> Any:
    return find_perceptual()


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
