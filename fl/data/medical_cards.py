"""Cards and configurations of medical data sets that come through the package index."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from fl.cards import DataCard, Reference
from fl.data.config import Labels, PackagedConfig
from fl.data.medslices_volumes import NAME, VERSION, describe


class MedslicesConfig(PackagedConfig):
    """Configuration of `medslices`."""

    classes: ClassVar[int | None] = 2
    size: int = Field(
        64,
        ge=16,
        le=512,
        description="side in pixels; slices of 512x512 (CT), 256x256 (head) and 45x120 (breast) are padded "
        "to a square and resized bilinearly",
    )
    channels: Literal["gray", "rgb"] = Field("gray", description="rgb: the gray image in three channels")
    task: Literal["multiclass", "binary"] = Field(
        "multiclass", description="binary: one sigmoid output, 1 for head MR; multiclass: softmax over both"
    )
    public_labels: Labels = Field(None, description="stays none: the public images are of neither class")
    evaluation_labels: Labels = Field(None, description="stays none: the evaluation part is empty")

    @model_validator(mode="after")
    def _binary_has_two_classes(self) -> MedslicesConfig:
        if self.task == "binary" and self.task_classes is not None:
            raise ValueError("expected task: multiclass with task_classes:, got task: binary")
        return self

    @field_validator("public_labels", "evaluation_labels")
    @classmethod
    def _has_classes(cls, labels: Labels) -> Labels:
        if labels is not None:
            raise ValueError(
                "expected none: the public part of medslices is of neither class and its evaluation part is "
                "empty; name another data set with public:"
            )
        return labels


CARDS: tuple[DataCard[Any], ...] = (
    DataCard(
        name=NAME,
        version=VERSION,
        summary="178 axial slices of five patients, gray, with tumour masks: chest CT (0) or head MR (1).",
        config=MedslicesConfig,
        implementation="fl.data.medslices:load",
        reference=Reference(
            "van Griethuysen et al., Computational Radiomics System to Decode the Radiographic Phenotype, "
            "Cancer Research 77(21), 2017"
        ),
        licence="BSD-3-Clause (pyradiomics)",
        parts="by patient: private lung1 and brain1, test lung2 and brain2, public breast1 (a breast MR, of "
        "neither class: label -1), evaluation empty, since no patient is left for it; slices of one patient "
        "look alike: targets for inversion, not a classification benchmark",
        describe=describe,
        assets=(NAME,),
        class_names=("chest CT", "head MR"),
        ranked=False,
    ),
)
