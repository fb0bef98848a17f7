"""From a federation's checkpoints to what an adversary sees of one target, and apart from it the secret.

An observation is recomputed from the checkpoint at the start of its round and equals, bit for bit, what was
sent while training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from fl.batch_norm import batch_statistics, inferred_statistics, running_statistics
from fl.candidate_bounds import unobservable
from fl.checkpoints import Checkpoint
from fl.client import ClientRecord, local_training
from fl.errors import NotApplicableError
from fl.federation import Federation
from fl.parameter_difference import infer_gradient, returned_model
from fl.server import aggregate
from fl.specs import BatchNormTier, ObservationForm, ThreatModel
from fl.targets import Target, candidates, draw_targets, labels_of
from fl.types import Knowledge, LocalTraining, ModelState, Observation, RoundView, Secret, Tensors, Update

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Observed", "Target", "batch_statistics", "candidates", "draw_targets", "observe"]

KEPT: tuple[BatchNormTier, ...] = ("none", "proxy")
"""Tiers in which nothing is known of the statistics that clients compute."""


@dataclass(frozen=True)
class Observed:
    """An observation and what lies behind it; the two go separate ways.

    Attributes:
        observation: For the adversary.
        secret: For the judge.
        protected: `n x C x H x W` in [0, 1], private: the secret's batch as the clients trained on it, where
            the defense changed it. Whoever stores it names it in `Secret.protected`.
    """

    observation: Observation
    secret: Secret
    protected: Tensor | None


def observe(
    federation: Federation,
    checkpoints: Mapping[int, Checkpoint],
    target: Target,
    threat_model: ThreatModel,
    *,
    form: ObservationForm = "shared",
) -> Observed:
    """Return what the adversary sees of a target, and the secret behind it.

    The observation holds no update where every observed client refused. Without knowledge of the clients'
    batch-norm statistics (`none`, `proxy`) they keep them: the update has no buffers. Seen as a
    `parameter_difference`, an update is the gradient inferred from the model sent and the one returned, both
    float32; its length is right where the local hyper-parameters are known.

    Args:
        federation: The federation.
        checkpoints: The starts of at least the target's rounds, by round.
        target: One of `candidates`.
        threat_model: Position, and the knowledge that is granted.
        form: What an update is seen as.

    Raises:
        NotApplicableError: If this adversary never sees such an observation.
    """
    reason = unobservable(threat_model, target.kind)
    if reason is None and target.kind == "update" and federation.server_defense.visible == "sum":
        reason = "under secure aggregation single updates are never seen (observe.kind: aggregate)"
    if reason is not None:
        raise NotApplicableError(reason)
    if target.kind == "global_model":
        return _observe_models(federation, checkpoints, target, threat_model)
    return _observe_updates(federation, checkpoints[target.round], target, threat_model, form=form)


def _observe_updates(
    federation: Federation,
    checkpoint: Checkpoint,
    target: Target,
    threat_model: ThreatModel,
    *,
    form: ObservationForm,
) -> Observed:
    records = [federation.client_update(checkpoint, c, batch=target.batch) for c in target.clients]
    sent = federation.sent(checkpoint)
    update = records[0].update
    if target.kind == "aggregate":
        sending = [r.update for r in records if r.update is not None]
        update = aggregate([federation.server_defense.per_update(u) for u in sending], federation.spec)
    ids = tuple(image_id for record in records for image_id in record.image_ids)
    labels = torch.cat([record.labels for record in records])
    if threat_model.knowledge.batch_norm in KEPT and update is not None:
        update = replace(update, buffers={})
    local = _local_training(federation, target, threat_model)
    if form == "parameter_difference" and update is not None:
        lr = federation.spec.lr_at(target.round)
        if local is not None and update.kind == "gradient":
            local = replace(local, lr=lr)  # the step between the two checkpoints
        update = _difference(sent, update, lr=lr, local=local)
    knowledge = Knowledge(
        labels=labels if threat_model.knowledge.labels == "known" else None,
        local_training=local,
        batch_norm=_batch_norm(
            federation, sent, records, update, tier=threat_model.knowledge.batch_norm, local=local
        ),
    )
    return Observed(
        observation=_observation(federation, target, (RoundView(target.round, sent, update),), knowledge),
        secret=_secret(federation, ids, labels),
        protected=_protected(federation, records),
    )


def _difference(sent: ModelState, update: Update, *, lr: float, local: LocalTraining | None) -> Update:
    returned = returned_model(sent.tensors, update, lr=lr)
    inferred = infer_gradient(
        sent.tensors,
        {name: returned[name] for name in update.tensors},
        reach=1.0 if local is None else local.reach,
    )
    n_images = update.n_images
    if local is not None:
        n_images = min(n_images, local.steps * local.batch_size)  # local steps may leave images out
    return replace(update, kind="gradient", tensors=inferred, n_images=n_images)


def _observe_models(
    federation: Federation,
    checkpoints: Mapping[int, Checkpoint],
    target: Target,
    threat_model: ThreatModel,
) -> Observed:
    views = tuple(RoundView(r, federation.sent(checkpoints[r]), None) for r in target.rounds)
    part = federation.data.part("private")
    held = federation.held_by_others
    labels_held = zip(held, labels_of(federation, held), strict=True)
    chosen = [position for position, labels in labels_held if target.label in labels]
    tier = threat_model.knowledge.batch_norm
    knowledge = Knowledge(
        labels=None,
        local_training=_local_training(federation, target, threat_model),
        batch_norm=None if tier in KEPT else running_statistics(views[-1].sent.tensors),
    )
    return Observed(
        observation=_observation(federation, target, views, knowledge),
        secret=_secret(federation, tuple(part.ids[i] for i in chosen), part.labels[chosen]),
        protected=None,
    )


def _observation(
    federation: Federation, target: Target, history: tuple[RoundView, ...], knowledge: Knowledge
) -> Observation:
    return Observation(
        kind=target.kind,
        clients=target.clients,
        history=history,
        task=federation.data.info.task,
        image=federation.architecture.image,
        knowledge=knowledge,
    )


def _secret(federation: Federation, image_ids: tuple[str, ...], labels: Tensor) -> Secret:
    info = federation.data.info
    values = labels.long().tolist()
    if info.task.kind == "binary":
        values = labels.long().flatten().tolist()
    elif info.task.kind == "multilabel":
        values = [tuple(row) for row in values]
    return Secret(info.fingerprint, image_ids, tuple(values))


def _protected(federation: Federation, records: Sequence[ClientRecord]) -> Tensor | None:
    if all(record.protected is None for record in records):
        return None
    return torch.cat([_trained_on(federation, record) for record in records])


def _trained_on(federation: Federation, record: ClientRecord) -> Tensor:
    if record.protected is not None:
        return record.protected
    part = federation.data.part("private")
    positions = part.positions(record.image_ids)
    return part.images(positions) if positions else torch.empty(0, *federation.architecture.image.shape)


def _local_training(
    federation: Federation, target: Target, threat_model: ThreatModel
) -> LocalTraining | None:
    """Return the largest observed client's, where several are observed; their batch sizes are each one's."""
    if not threat_model.knowledge.local_hyperparameters:
        return None
    spec = federation.spec
    largest = max(target.clients or range(spec.clients), key=federation.n_images)
    local = local_training(spec, largest, federation.n_images(largest), round_=target.round)
    if target.kind != "aggregate" or spec.batch_sizes is None or spec.local_steps is None:
        return local
    return replace(local, batch_sizes=tuple(map(spec.batch_size_of, target.clients)))


def _batch_norm(
    federation: Federation,
    sent: ModelState,
    records: Sequence[ClientRecord],
    update: Update | None,
    *,
    tier: BatchNormTier,
    local: LocalTraining | None,
) -> Tensors | None:
    """Return what the tier grants; a proxy is made by who has the public images."""
    if tier in KEPT:
        return None
    image = sent.architecture.image
    if tier == "inferred":
        if update is None:
            return None
        module = federation.build(sent)
        return inferred_statistics(
            module, sent.tensors, update, image=image, clients=len(records), local=local
        )
    images = torch.cat([_trained_on(federation, record) for record in records])
    if tier == "running" or not len(images):
        return running_statistics(sent.tensors)
    inputs = image.normalise(images.to(federation.device))
    return batch_statistics(federation.build(sent), inputs)
