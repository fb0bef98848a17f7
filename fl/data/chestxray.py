"""COVID-19 Radiography Database: chest X-rays of four kinds, each with a mask of the lungs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from fl.data.class_folders import image_names
from fl.data.release_config import Entry, ReleaseConfig
from fl.specs import Task

Finding = Literal["COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"]


class ChestXRayConfig(ReleaseConfig):
    """Configuration of `chestxray`."""

    name: ClassVar[str] = "chestxray"
    get: ClassVar[str] = (
        "get the COVID-19 Radiography Database (Qatar University and University of Dhaka) from its page on "
        "Kaggle; the folder holds COVID, Lung_Opacity, Normal and 'Viral Pneumonia', each with images/ and "
        "masks/"
    )
    hashed: ClassVar[bool] = True
    regions: ClassVar[bool] = True

    channels: Literal["gray", "rgb"] = Field("gray", description="rgb: the gray image in three channels")
    findings: tuple[Finding, ...] = Field(
        ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"),
        min_length=2,
        description="classes, in the order of their labels; images of others are left out",
    )

    @field_validator("findings")
    @classmethod
    def _each_once(cls, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
        if len(set(findings)) < len(findings):
            raise ValueError(f"expected each finding once, got {', '.join(findings)}")
        return findings

    @property
    def learned(self) -> Task:
        """One class per finding."""
        return Task("multiclass", len(self.findings))

    def sources(self, root: Path) -> list[Path]:
        """Return the folders of images and of masks."""
        return [root / finding / kind for kind in ("images", "masks") for finding in self.findings]

    def entries(self, root: Path) -> Iterator[Entry]:
        """Return the images of the chosen findings; the spreadsheets beside them are not read.

        Raises:
            DataUnavailableError: If a folder is missing or empty.
        """
        for label, finding in enumerate(self.findings):
            folder = root / finding / "images"
            for name in image_names(folder, get=self.get):
                path = folder / name
                yield Entry(path.relative_to(root).as_posix(), str(path), label, None, "")

    def region_name(self, name: str) -> str:
        """Return the mask of the lungs: the file of the same name in `masks`."""
        finding, _, file = name.split("/")
        return f"{finding}/masks/{file}"
