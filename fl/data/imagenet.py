"""ImageNet's classification set (ILSVRC 2012) in a folder per synset."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from fl.data.class_folders import image_names
from fl.data.release_config import Entry, ReleaseConfig
from fl.errors import DataUnavailableError
from fl.specs import Task

FOLDERS = {"train": "", "val": "test"}
"""The release's folders, and the part that their images belong to ("": by a hash of their size)."""

SYNSETS = 1000
_SYNSET = re.compile(r"n\d{8}$")


class ImageNetConfig(ReleaseConfig):
    """Configuration of `imagenet`."""

    name: ClassVar[str] = "imagenet"
    get: ClassVar[str] = (
        "get ILSVRC2012 from ImageNet's site, under its terms of access, and sort both sets into a folder "
        "per synset as torchvision does; the folder holds train/<synset>/ and val/<synset>/"
    )

    synsets: tuple[str, ...] | None = Field(
        None, min_length=2, description="only these synsets, such as n01440764; None: all that train/ holds"
    )
    first: int | None = Field(None, ge=2, le=SYNSETS, description="only the first so many synsets by name")

    @field_validator("synsets")
    @classmethod
    def _sorted(cls, synsets: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if synsets is not None and len(set(synsets)) < len(synsets):
            raise ValueError(f"expected each synset once, got {', '.join(synsets)}")
        return None if synsets is None else tuple(sorted(synsets))

    @model_validator(mode="after")
    def _one_selection(self) -> ImageNetConfig:
        if self.synsets is not None and self.first is not None:
            raise ValueError("expected synsets: or first:, got both")
        return self

    @property
    def learned(self) -> Task:
        """One class per synset, in the order of their names.

        Raises:
            DataUnavailableError: If there is no release, or it lacks synsets.
        """
        return Task("multiclass", len(self._chosen(self.find_root())))

    @property
    def given(self) -> frozenset[str]:
        """The release's validation images are the test part (its test images have no public labels)."""
        return frozenset({"test"})

    def sources(self, root: Path) -> list[Path]:
        """Return the folders of the chosen synsets."""
        chosen = self._chosen(root)
        return [root / folder / synset for folder in FOLDERS for synset in chosen]

    def entries(self, root: Path) -> Iterator[Entry]:
        """Return the images of the chosen synsets.

        Raises:
            DataUnavailableError: If a folder is missing or empty.
        """
        for label, synset in enumerate(self._chosen(root)):
            for folder, part in FOLDERS.items():
                place = root / folder / synset
                for file in image_names(place, get=self.get):
                    yield Entry(f"{folder}/{synset}/{file}", str(place / file), label, None, part)

    def _chosen(self, root: Path) -> Sequence[str]:
        found = self._synsets(root / "train")
        wanted = found[: self.first] if self.synsets is None else self.synsets
        lacking = sorted(set(wanted) - set(found))
        if lacking or len(wanted) < max(2, self.first or 0):
            needed = f"a folder {lacking[0]}" if lacking else f"at least {self.first or 2} folders of synsets"
            raise DataUnavailableError(
                f"{root / 'train'}: expected {needed}, got {len(found)} others; {self.get}"
            )
        return wanted

    def _synsets(self, train: Path) -> list[str]:
        try:
            with os.scandir(train) as found:
                return sorted(entry.name for entry in found if _SYNSET.match(entry.name))
        except OSError as error:
            raise DataUnavailableError(
                f"{train}: expected a folder per synset, got: {error.strerror}; {self.get}"
            ) from error
