"""The JSON document of a recorded observation and how it is read, without torch (`fl.recorded`)."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from fl.cards import PARTS, DataInfo, ModelTraits
from fl.errors import RecordedObservationError, UnknownPluginError
from fl.models import MODELS
from fl.specs import BatchNormMode, Config, ObservationKind, Plugin, Task, TaskKind
from fl.types import OBSERVATION_SCHEMA, ImageSpec

ENTRY = "leakbench.observation"
"""The entry of the safetensors metadata that holds the document."""


class TaskSection(Config):
    """`fl.specs.Task`."""

    kind: TaskKind
    classes: int = Field(ge=2)


class ImageSection(Config):
    """`fl.types.ImageSpec`: what the models take."""

    channels: int = Field(ge=1)
    size: int = Field(ge=1)
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _one_per_channel(self) -> ImageSection:
        if not (len(self.mean) == len(self.std) == self.channels) or min(self.std) <= 0:
            raise ValueError(f"expected a mean and a positive std for each of {self.channels} channels")
        return self

    @property
    def spec(self) -> ImageSpec:
        """As the harness holds it."""
        return ImageSpec(self.channels, self.size, self.mean, self.std)


class ModelSection(Config):
    """A registered architecture and its configuration."""

    name: str
    config: dict[str, Any]


class LocalTrainingSection(Config):
    """`fl.types.LocalTraining`, where the adversary knows it."""

    lr: float = Field(gt=0)
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=1)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    mu: float = Field(0.0, ge=0)
    batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = ()


class UpdateSection(Config):
    """`fl.types.Update` without its tensors."""

    kind: Literal["gradient", "delta"]
    n_images: int = Field(ge=1)


class RoundSection(Config):
    """`fl.types.RoundView` without its tensors."""

    round: int = Field(ge=0)
    trainable: tuple[str, ...]
    batch_norm: BatchNormMode
    update: UpdateSection | None


class SecretSection(Config):
    """`fl.types.Secret`, where the file's author gives the truth away."""

    fingerprint: str
    image_ids: tuple[str, ...]
    labels: tuple[int, ...] | tuple[tuple[int, ...], ...]


class Document(Config):
    """The JSON document of a recorded observation."""

    version: int = Field(description="version of this form")
    kind: ObservationKind
    clients: tuple[int, ...]
    task: TaskSection
    image: ImageSection
    model: ModelSection
    local_training: LocalTrainingSection | None
    rounds: tuple[RoundSection, ...] = Field(min_length=1)
    secret: SecretSection | None


@dataclass(frozen=True)
class RecordedHeader:
    """What a recorded observation is about, read without torch.

    Attributes:
        kind: Kind of observation.
        task: What the model is trained for.
        image: What the model takes.
        model: The architecture.
        rounds: The rounds' numbers.
        update: Kind of the last round's update, or None.
        n_images: Images behind it, or None.
        has_labels: Whether the adversary knows the labels.
        has_local_training: Whether the adversary knows the local hyper-parameters.
        has_batch_norm: Whether the adversary knows batch-norm statistics.
        has_secret: Whether the truth is named, so that there can be truth metrics.
    """

    kind: ObservationKind
    task: Task
    image: ImageSpec
    model: Plugin
    rounds: tuple[int, ...]
    update: Literal["gradient", "delta"] | None
    n_images: int | None
    has_labels: bool
    has_local_training: bool
    has_batch_norm: bool
    has_secret: bool

    @property
    def info(self) -> DataInfo:
        """The unknown data set, as far as the file describes it."""
        image = self.image
        return DataInfo(
            task=self.task,
            channels=image.channels,
            size=image.size,
            images=dict.fromkeys(PARTS, 0),
            public=False,
            fingerprint="",
            mean=image.mean,
            std=image.std,
        )

    @property
    def traits(self) -> ModelTraits:
        """The model's traits."""
        return MODELS.get(self.model.name).traits(self.model.config, self.info)


def read_header(path: Path) -> RecordedHeader:
    """Return what a recorded observation is about, without importing torch.

    Raises:
        RecordedObservationError: If the file is missing or breaks the form.
    """
    document, names = read_document(path)
    last = document.rounds[-1].update
    return RecordedHeader(
        kind=document.kind,
        task=Task(document.task.kind, document.task.classes),
        image=document.image.spec,
        model=model_plugin(path, document.model),
        rounds=tuple(section.round for section in document.rounds),
        update=last.kind if last else None,
        n_images=last.n_images if last else None,
        has_labels="knowledge.labels" in names,
        has_local_training=document.local_training is not None,
        has_batch_norm=any(name.startswith("knowledge.batch_norm.") for name in names),
        has_secret=document.secret is not None,
    )


def read_document(path: Path) -> tuple[Document, frozenset[str]]:
    """Return the document of a recorded observation and the names of its tensors.

    Raises:
        RecordedObservationError: If the file is missing, is no safetensors file or has no valid document.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError(f"its header should be {length} bytes long")
            entries = json.loads(file.read(length))
            text = entries.pop("__metadata__", {})[ENTRY]
    except OSError as error:
        raise RecordedObservationError(f"{path}: cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise RecordedObservationError(
            f"{path}: expected a recorded observation, got a safetensors file without {ENTRY!r} metadata"
        ) from error
    except (struct.error, ValueError, AttributeError, TypeError) as error:
        raise RecordedObservationError(f"{path}: expected a safetensors file: {error}") from error
    return _parse(path, text), frozenset(entries)


def _parse(path: Path, text: str) -> Document:
    try:
        found = json.loads(text)
        version = found.get("version") if isinstance(found, dict) else None
        if version != OBSERVATION_SCHEMA:
            raise RecordedObservationError(
                f"{path}: expected version {OBSERVATION_SCHEMA} of the form, got {version!r}"
            )
        return Document.model_validate_json(text)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise RecordedObservationError(f"{path}: {'; '.join(problems)}") from error
    except ValueError as error:
        raise RecordedObservationError(f"{path}: expected JSON in {ENTRY!r}: {error}") from error


def model_plugin(path: Path, section: ModelSection) -> Plugin:
    """Return the registered architecture that a document names.

    Raises:
        RecordedObservationError: If there is none of that name, or its configuration is wrong.
    """
    try:
        card = MODELS.get(section.name)
        return Plugin(card.name, card.version, card.config.model_validate(section.config))
    except UnknownPluginError as error:
        raise RecordedObservationError(f"{path}: {error}") from error
    except ValidationError as error:
        raise RecordedObservationError(
            f"{path}: expected a configuration of model {section.name!r}: {error}"
        ) from error
