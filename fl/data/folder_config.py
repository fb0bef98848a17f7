"""Configuration of `folder`, read without torch or numpy."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from fl.data.config import FIT, DataConfig, Fit, Root, UserPath
from fl.data.split import Shares
from fl.data.table_labels import Uncertain
from fl.specs import Config, TaskKind, added_later


class FolderSplit(Config):
    """Share of the images (or patients) in each part; the shares sum to 1."""

    private: float = Field(0.55, gt=0, le=1)
    public: float = Field(0.15, ge=0, le=1)
    evaluation: float = Field(0.15, ge=0, le=1)
    test: float = Field(0.15, ge=0, le=1)

    @model_validator(mode="after")
    def _sums_to_one(self) -> FolderSplit:
        total = sum(self.shares)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"expected shares that sum to 1, got {total:g}")
        return self

    @property
    def shares(self) -> Shares:
        """The shares in the order of `fl.cards.PARTS`."""
        return Shares(self.private, self.public, self.evaluation, self.test)


class FolderConfig(DataConfig):
    """Configuration of `folder`: its identity is the content of the files, not where they lie."""

    root: Root = Field(description="folder with a folder of images per class, or with the CSV's images")
    csv: UserPath | None = Field(
        None, description="table of the images, relative to root; None: class folders"
    )
    path_column: str = Field("path", description="csv: image file, relative to root")
    label_column: str = Field("label", description="csv: class; binary: 0 or 1")
    task: TaskKind = added_later(
        "multiclass", description="multiclass; binary: two class folders or a 0/1 column; multilabel (csv)"
    )
    label_columns: tuple[str, ...] | None = added_later(
        None, description="multilabel: a column of 0/1 per output, or one column of names; binary: one of 0/1"
    )
    label_separator: str | None = added_later(
        None, min_length=1, description="multilabel: what separates the names in the one column of names"
    )
    uncertain: Uncertain | None = added_later(
        None, description="what -1 in a 0/1 column stands for; drop: leave the image out; None: a mistake"
    )
    split_column: str | None = Field(
        None, description="csv: private, public, evaluation or test; None: split:"
    )
    patient_column: str | None = Field(None, description="csv: patient, whose images all go to one part")
    patients: Literal["dicom"] | None = added_later(
        None, description="dicom: patients by the PatientID in the files instead of patient_column"
    )
    size: int = Field(64, ge=8, le=1024, description="side in pixels")
    fit: Fit = added_later("crop", description=FIT)
    channels: Literal["gray", "rgb"] = "rgb"
    split: FolderSplit = Field(default_factory=FolderSplit, description="share of each part")
    public: bool = Field(False, description="whether these images may be shown and stored in the open")

    @model_validator(mode="after")
    def _columns_belong_to_the_csv(self) -> FolderConfig:
        if self.csv is None and (self.split_column or self.patient_column):
            raise ValueError("split_column and patient_column need csv:")
        if self.patients and self.patient_column:
            raise ValueError("expected patients: or patient_column:, got both")
        if self.split_column and self.split != FolderSplit():
            raise ValueError("expected split_column: or split:, got both")
        return self

    @model_validator(mode="after")
    def _labels_belong_to_the_task(self) -> FolderConfig:
        columns = self.label_columns
        if columns is not None and (self.csv is None or self.task == "multiclass"):
            raise ValueError("label_columns needs csv: and task: binary or multilabel")
        if columns is not None and len(set(columns)) < len(columns):
            raise ValueError(f"expected each of label_columns once, got {', '.join(columns)}")
        if self.task == "binary" and columns is not None and len(columns) != 1:
            raise ValueError(f"task: binary has one of label_columns, got {len(columns)}")
        named = self.label_separator is not None
        if named and (self.task != "multilabel" or columns is None or len(columns) != 1):
            raise ValueError("label_separator needs task: multilabel and one of label_columns")
        if self.task == "multilabel" and not named and (columns is None or len(columns) < 2):
            raise ValueError(
                "task: multilabel needs csv: and label_columns: two or more of 0/1, or one of names with "
                "label_separator:"
            )
        if self.uncertain is not None and not self.flags:
            raise ValueError("uncertain needs columns of 0/1: task: binary or multilabel with csv:")
        return self

    @property
    def flags(self) -> tuple[str, ...]:
        """The columns of 0/1 that hold the labels; none where classes or names hold them."""
        if self.csv is None or self.task == "multiclass" or self.label_separator is not None:
            return ()
        return self.label_columns or (self.label_column,)

    @property
    def knows_patients(self) -> bool:
        """Whether every image's patient is known."""
        return self.patient_column is not None or self.patients is not None

    def resolved(self) -> dict[str, Any]:
        """Return the identity: paths and column names give way to a digest of what they lead to.

        Raises:
            DataUnavailableError: If the files cannot be read.
            UsageError: If they are not a data set.
        """
        from fl.data.folder_index import read_index

        return self.identity(read_index(self).content)

    def identity(self, content: str) -> dict[str, Any]:
        """Return the identity, given the digest of what the paths and columns lead to."""
        places = {
            "root",
            "csv",
            "path_column",
            "label_column",
            "label_columns",
            "label_separator",
            "uncertain",
            "split_column",
            "patient_column",
            "patients",
        }
        values = {name: value for name, value in super().resolved().items() if name not in places}
        return {**values, "content": content}
