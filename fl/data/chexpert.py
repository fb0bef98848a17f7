"""CheXpert-v1.0 and CheXpert-v1.0-small: chest X-rays with uncertain labels, by patient."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from fl.data.release_config import Entry, ReleaseConfig
from fl.data.table_labels import Uncertain, flags
from fl.data.tables import Row, fail, read_table
from fl.specs import Task

Observation = Literal[
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
]

PATH, VIEW = "Path", "Frontal/Lateral"
TABLES = {"train.csv": "", "valid.csv": "test"}
"""The release's tables, and the part that their images belong to ("": by patient)."""

_NAME = re.compile(r"(?:^|/)((?:train|valid)/(patient\d+)/.+)$")


class CheXpertConfig(ReleaseConfig):
    """Configuration of `chexpert`."""

    name: ClassVar[str] = "chexpert"
    get: ClassVar[str] = (
        "get CheXpert-v1.0-small (or CheXpert-v1.0) from the Stanford AIMI center, under its research use "
        "agreement; the folder holds train.csv, valid.csv, train/ and valid/"
    )

    channels: Literal["gray", "rgb"] = Field("gray", description="rgb: the gray image in three channels")
    observations: tuple[Observation, ...] = Field(
        ("No Finding",), min_length=1, description="outputs, in order: one is binary, several are multilabel"
    )
    uncertain: Uncertain = Field(
        "zeros", description="what -1 stands for: 0, 1, or drop: leave the image out (blank is 0)"
    )
    views: Literal["frontal", "lateral", "all"] = "frontal"

    @field_validator("observations")
    @classmethod
    def _each_once(cls, observations: tuple[Observation, ...]) -> tuple[Observation, ...]:
        if len(set(observations)) < len(observations):
            raise ValueError(f"expected each observation once, got {', '.join(observations)}")
        return observations

    @property
    def learned(self) -> Task:
        """Binary for one observation, else multilabel."""
        outputs = len(self.observations)
        return Task("binary", 2) if outputs == 1 else Task("multilabel", outputs)

    @property
    def given(self) -> frozenset[str]:
        """The release's validation set, labelled by radiologists, is the test part."""
        return frozenset({"test"})

    def sources(self, root: Path) -> list[Path]:
        """Return the tables and the two folders of patients."""
        return [root / name for name in (*TABLES, "train", "valid")]

    def entries(self, root: Path) -> Iterator[Entry]:
        """Return the images of the chosen views, with the chosen observations.

        Raises:
            DataUnavailableError: If a table is missing.
            UsageError: If a table breaks the release's form.
        """
        columns = dict.fromkeys((PATH, VIEW, *self.observations), "")
        problems: list[str] = []
        for table, part in TABLES.items():
            for row in read_table(root / table, columns, missing=self.get):
                entry = self._entry(row, part, problems)
                if entry is not None:
                    yield entry
        fail(problems)

    def _entry(self, row: Row, part: str, problems: list[str]) -> Entry | None:
        found, view = _NAME.search(row.cells[PATH]), row.cells[VIEW].lower()
        if found is None:
            problems.append(
                f"{row.origin}: column {PATH!r}: expected .../train/patientN/... or .../valid/patientN/..., "
                f"got {row.cells[PATH]!r}"
            )
        if view not in ("frontal", "lateral"):
            problems.append(
                f"{row.origin}: column {VIEW!r}: expected Frontal or Lateral, got {row.cells[VIEW]!r}"
            )
        if found is None or self.views not in ("all", view):
            return None
        cells = [(name, row.cells[name]) for name in self.observations]
        entries = flags(cells, origin=row.origin, uncertain=self.uncertain, problems=problems)
        if entries is None:
            return None
        label = entries[0] if len(entries) == 1 else entries
        return Entry(found[1], row.origin, label, found[2], part)
