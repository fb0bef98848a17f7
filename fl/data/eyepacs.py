"""EyePACS-AIROGS-light: fundus photographs, referable glaucoma (RG) or not (NRG)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from fl.data.class_folders import image_names
from fl.data.release_config import Entry, ReleaseConfig
from fl.specs import Task

FOLDERS = {"train": "", "validation": "evaluation", "test": "test"}
"""The release's folders, and the part that their images belong to ("": by a hash of their content)."""

CLASSES = ("NRG", "RG")
"""Folders of the classes, in the order of their labels."""


class EyepacsConfig(ReleaseConfig):
    """Configuration of `eyepacs_airogs`."""

    name: ClassVar[str] = "eyepacs_airogs"
    classes: ClassVar[int | None] = 2
    get: ClassVar[str] = (
        "get EyePACS-AIROGS-light (a balanced selection from Rotterdam EyePACS AIROGS) from its page on "
        "Kaggle; the folder holds train, validation and test, each with RG/ and NRG/"
    )
    hashed: ClassVar[bool] = True

    task: Literal["binary", "multiclass"] = Field(
        "binary", description="binary: one sigmoid output, 1 for RG; multiclass: softmax over NRG (0) and RG"
    )

    @property
    def learned(self) -> Task:
        """Two classes."""
        return Task(self.task, 2)

    @property
    def given(self) -> frozenset[str]:
        """The release's validation images are the evaluation part, its test images the test part."""
        return frozenset(FOLDERS.values()) - {""}

    def sources(self, root: Path) -> list[Path]:
        """Return the folders of images."""
        return [root / folder / name for folder in FOLDERS for name in CLASSES]

    def entries(self, root: Path) -> Iterator[Entry]:
        """Return all images.

        Raises:
            DataUnavailableError: If a folder is missing or empty.
        """
        for folder, part in FOLDERS.items():
            for label, name in enumerate(CLASSES):
                place = root / folder / name
                for file in image_names(place, get=self.get):
                    yield Entry(f"{folder}/{name}/{file}", str(place / file), label, None, part)
