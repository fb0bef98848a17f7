"""What the built-in data sets have in common: normalisation and narrowing a part by label."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from fl.cards import PARTS
from fl.specs import Config

Labels = tuple[int, ...] | None


class DataConfig(Config):
    """Base of the built-in data sets' configurations.

    Attributes:
        classes: Number of classes, where it does not depend on the user's files.
    """

    classes: ClassVar[int | None] = None

    size: int = Field(description="image height and width in pixels")
    normalise: Literal["none", "dataset"] = Field(
        "none", description="dataset: models take (image - mean) / std, with constants of the public part"
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

    def keeps(self, part: str, label: int) -> bool:
        """Return whether images of class `label` stay in `part`."""
        labels = self.labels(part)
        return labels is None or label in labels
