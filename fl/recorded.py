"""Recorded observations: one file that a third party can write and anyone can attack.

The file is in the safetensors format. Its metadata has one entry, `leakbench.observation`: a JSON document
with the fields of `fl.recorded_document.Document`. Its tensors are named

    rounds.<i>.sent.<name>            parameters and buffers of the model sent, i counting `rounds` from 0
    rounds.<i>.update.<name>          the update, by parameter name; a frozen parameter is absent
    rounds.<i>.buffers.<name>         floating-point buffers sent along, where they are shared
    knowledge.labels                  `n` int64, or `n x outputs` float; where the adversary knows them
    knowledge.batch_norm.<name>       known batch-norm statistics, by buffer name

All rounds send the same registered architecture, without a defense's wrappers. `header` reads what planning
needs; importing this module or calling it does not import torch.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fl.encoding import prefixed, under
from fl.errors import RecordedObservationError
from fl.models import build
from fl.recorded_document import (
    ENTRY,
    Document,
    ImageSection,
    LocalTrainingSection,
    ModelSection,
    RecordedHeader,
    RoundSection,
    SecretSection,
    TaskSection,
    UpdateSection,
    model_plugin,
    read_document,
)
from fl.recorded_document import read_header as header
from fl.specs import Plugin, Task
from fl.types import (
    OBSERVATION_SCHEMA,
    Architecture,
    Knowledge,
    LocalTraining,
    ModelState,
    Observation,
    RoundView,
    Secret,
    Tensors,
    Update,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RecordedHeader", "header", "read", "write"]


def write(path: Path, observation: Observation, secret: Secret | None = None) -> None:
    """Write an observation, whole or not at all.

    Raises:
        RecordedObservationError: If its models differ in architecture, or a defense's wrapper is among them.
        OSError: If the file cannot be written.
    """
    from safetensors.torch import save

    architecture = observation.sent.architecture
    if any(view.sent.architecture != architecture for view in observation.history) or architecture.wrappers:
        raise RecordedObservationError(
            f"{path}: expected rounds of one architecture without wrappers, got "
            f"{sorted({str(view.sent.architecture) for view in observation.history})}"
        )
    document = _document(observation, secret).model_dump_json(exclude_defaults=True)  # for older readers
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in _tensors(observation).items()}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save(tensors, metadata={ENTRY: document}))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read(path: Path) -> tuple[Observation, Secret | None]:
    """Return a recorded observation and, where the file names it, the secret.

    Raises:
        RecordedObservationError: If the file is missing or breaks the form.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    document, _ = read_document(path)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise RecordedObservationError(f"{path}: expected a whole safetensors file: {error}") from error
    observation = _observation(document, model_plugin(path, document.model), tensors)
    if problems := list(_problems(observation)):
        raise RecordedObservationError(f"{path}: " + "; ".join(problems[:8]))
    secret = document.secret
    if secret is None:
        return observation, None
    return observation, Secret(secret.fingerprint, secret.image_ids, secret.labels)


def _document(observation: Observation, secret: Secret | None) -> Document:
    image, local = observation.image, observation.knowledge.local_training
    architecture = observation.sent.architecture
    return Document(
        version=OBSERVATION_SCHEMA,
        kind=observation.kind,
        clients=observation.clients,
        task=TaskSection(kind=observation.task.kind, classes=observation.task.classes),
        image=ImageSection(channels=image.channels, size=image.size, mean=image.mean, std=image.std),
        model=ModelSection(name=architecture.name, config=dict(architecture.config)),
        local_training=None if local is None else LocalTrainingSection(**asdict(local)),
        rounds=tuple(
            RoundSection(
                round=view.round,
                trainable=view.sent.trainable,
                batch_norm=view.sent.batch_norm,
                update=view.update and UpdateSection(kind=view.update.kind, n_images=view.update.n_images),
            )
            for view in observation.history
        ),
        secret=secret
        and SecretSection(fingerprint=secret.fingerprint, image_ids=secret.image_ids, labels=secret.labels),
    )


def _tensors(observation: Observation) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for index, view in enumerate(observation.history):
        tensors |= prefixed(f"rounds.{index}.sent.", view.sent.tensors)
        if view.update is not None:
            tensors |= prefixed(f"rounds.{index}.update.", view.update.tensors)
            tensors |= prefixed(f"rounds.{index}.buffers.", view.update.buffers)
    knowledge = observation.knowledge
    if knowledge.labels is not None:
        tensors["knowledge.labels"] = knowledge.labels
    if knowledge.batch_norm is not None:
        tensors |= prefixed("knowledge.batch_norm.", knowledge.batch_norm)
    return tensors


def _observation(document: Document, model: Plugin, tensors: Tensors) -> Observation:
    task, image = Task(document.task.kind, document.task.classes), document.image.spec
    architecture = Architecture(model.name, model.config.resolved(), image, task.outputs)
    local = document.local_training
    return Observation(
        kind=document.kind,
        clients=document.clients,
        history=tuple(
            RoundView(
                section.round,
                ModelState(
                    architecture,
                    under(f"rounds.{index}.sent.", tensors),
                    section.trainable,
                    section.batch_norm,
                ),
                None
                if section.update is None
                else Update(
                    section.update.kind,
                    under(f"rounds.{index}.update.", tensors),
                    under(f"rounds.{index}.buffers.", tensors),
                    section.update.n_images,
                ),
            )
            for index, section in enumerate(document.rounds)
        ),
        task=task,
        image=image,
        knowledge=Knowledge(
            labels=tensors.get("knowledge.labels"),
            local_training=None if local is None else LocalTraining(**local.model_dump()),
            batch_norm=under("knowledge.batch_norm.", tensors) or None,
        ),
    )


def _problems(observation: Observation) -> Iterator[str]:
    """What the document cannot say: tensors that do not fit the architecture, the task or each other."""
    expected = build(observation.sent.architecture).state_dict()
    for index, view in enumerate(observation.history):
        yield from _misfits(f"rounds.{index}.sent.", view.sent.tensors, expected, whole=True)
        trainable = {name: expected[name] for name in view.sent.trainable if name in expected}
        if len(trainable) < len(view.sent.trainable):
            yield f"rounds.{index}.trainable: expected parameters of the model"
        if view.update is not None:
            yield from _misfits(f"rounds.{index}.update.", view.update.tensors, trainable, whole=False)
            yield from _misfits(f"rounds.{index}.buffers.", view.update.buffers, expected, whole=False)
    update = observation.history[-1].update
    if observation.kind != "global_model" and update is None:
        yield f"expected an update in the last round of kind {observation.kind}, got none"
    statistics = observation.knowledge.batch_norm or {}
    yield from _misfits("knowledge.batch_norm.", statistics, expected, whole=False)
    labels, task = observation.knowledge.labels, observation.task
    if labels is not None and update is not None:
        single = (_images_behind(observation, update, len(labels)),)
        shape = single if task.kind == "multiclass" else (*single, task.outputs)
        if tuple(labels.shape) not in {shape, (*single, task.outputs)}:
            yield f"knowledge.labels: expected shape {shape}, got {tuple(labels.shape)}"


def _images_behind(observation: Observation, update: Update, labelled: int) -> int:
    """How many labels there should be; of a mean of deltas only that they are no more than the images."""
    if observation.kind == "aggregate" and update.kind == "delta":
        return min(labelled, update.n_images)
    return replace(observation, knowledge=replace(observation.knowledge, labels=None)).n_images


def _misfits(prefix: str, tensors: Tensors, expected: Tensors, *, whole: bool) -> Iterator[str]:
    if whole:
        yield from (
            f"{prefix}{name}: expected a tensor, got none" for name in expected if name not in tensors
        )
    for name, tensor in tensors.items():
        if name not in expected:
            yield f"{prefix}{name}: expected names of the model, got an unknown one"
        elif tensor.shape != expected[name].shape:
            yield f"{prefix}{name}: expected shape {tuple(expected[name].shape)}, got {tuple(tensor.shape)}"
        elif not tensor.isfinite().all():
            yield f"{prefix}{name}: expected finite numbers, got NaN or infinity"
