"""What the built-in data sets have in common: normalisation and narrowing a part by label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field, field_validator

from fl.cards import PARTS
from fl.data.table_labels import Label
from fl.specs import Config, added_later

Labels = tuple[int, ...] | None
Fit = Literal["crop", "stretch"]
FIT = "how an image becomes a square; crop: shorter side resized, centre kept; stretch: both sides resized"


def _without_null(path: str) -> str:
    if "\0" in path:
        raise ValueError("expected a path, got a text with a null character")
    return path


def _in_a_known_home(path: str) -> str:
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"expected a path, got {path!r}, a home folder that is not known here") from None
    return path


UserPath = Annotated[str, Field(min_length=1), AfterValidator(_without_null)]
"""A path as the user wrote it."""

Root = Annotated[UserPath, AfterValidator(_in_a_known_home)]
"""A folder as the user wrote it; `~` stands for a home folder."""


class Constants(NamedTuple):
    """What model inputs are normalised with: mean and standard deviation per channel, images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Constants((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""What torchvision's ImageNet weights were trained with (torchvision's documentation of its models)."""


class DataConfig(Config):
    """Base of the built-in data sets' configurations.

    Attributes:
        classes: Number of classes, where it does not depend on the user's files.
    """

    classes: ClassVar[int | None] = None

    size: int = Field(description="image height and width in pixels")
    normalise: Literal["none", "dataset", "imagenet"] = Field(
        "none",
        description="models take (image - mean) / std; dataset: constants of the public part; imagenet: "
        "those of torchvision's ImageNet weights (gray: their means over RGB, 0.449 and 0.226)",
    )
    private_labels: Labels = Field(None, description="keep only these classes in the private part")
    public_labels: Labels = Field(None, description="keep only these classes in the public part")
    evaluation_labels: Labels = Field(None, description="keep only these classes in the evaluation part")
    test_labels: Labels = Field(None, description="keep only these classes in the test part")

    @field_validator(*(f"{part}_labels" for part in PARTS))
    @classmethod
    def _labels_exist(cls, labels: Labels) -> Labels:
        if labels is None:
            return None
        if not labels:
            raise ValueError("expected at least one label, got an empty list")
        outside = [label for label in labels if label < 0 or (cls.classes and label >= cls.classes)]
        if outside:
            allowed = f"0 to {cls.classes - 1}" if cls.classes else "0 or more"
            raise ValueError(f"expected labels of {allowed}, got {outside[0]}")
        return tuple(sorted(set(labels)))

    def labels(self, part: str) -> Labels:
        """Return the classes that `part` is narrowed to, or None for all."""
        labels: Labels = getattr(self, f"{part}_labels")
        return labels

    def keeps(self, part: str, label: Label) -> bool:
        """Return whether an image stays in `part`.

        Multiclass and binary: if it is of one of the classes that the part is narrowed to. Multilabel: if at
        least one of those outputs is 1; an image whose labels are all 0 stays only where nothing is narrowed.
        """
        labels = self.labels(part)
        if labels is None:
            return True
        return label in labels if isinstance(label, int) else any(label[output] for output in labels)

    def constants(self, channels: int, measure: Callable[[], Constants]) -> Constants:
        """Return what images of `channels` channels are normalised with.

        Args:
            channels: 1 or 3.
            measure: Gives the constants of the public part; called only where they are wanted.
        """
        if self.normalise == "dataset":
            return measure()
        if self.normalise == "none":
            return Constants((0.0,) * channels, (1.0,) * channels)
        if channels == 1:
            return Constants(*((round(sum(values) / 3, 3),) for values in IMAGENET))
        return IMAGENET


class PackagedConfig(DataConfig):
    """Base of the configurations of data sets that come inside packages and have few classes."""

    task_classes: int | None = added_later(
        None,
        ge=2,
        description="classes of the task, if more than occur here: models get as many outputs (an attacker "
        "who does not know the label has as many to choose from)",
    )

    @field_validator("task_classes")
    @classmethod
    def _classes_fit(cls, task_classes: int | None) -> int | None:
        if task_classes is not None and cls.classes is not None and task_classes <= cls.classes:
            raise ValueError(f"expected more than the {cls.classes} classes that occur, got {task_classes}")
        return task_classes
