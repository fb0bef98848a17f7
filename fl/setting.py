"""What a trial plays out in, as cards and the planner see it, without torch or numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fl.specs import FederationSpec, ObservationForm, ObservationKind, Task, ThreatModel, UpdateKind

PARTS = ("private", "public", "evaluation", "test")


@dataclass(frozen=True)
class DataInfo:
    """What a configured data set holds, known without loading it.

    Attributes:
        task: What a model is trained for on it.
        channels: Image channels.
        size: Height and width in pixels.
        images: Number of images of each part of `PARTS`.
        public: Whether its images may be shown and stored in the open.
        fingerprint: Digest that changes when the images or labels change.
        groups: Number of patients or sources in the private part, where known.
        mean: Per-channel mean that model inputs are normalised with.
        std: Per-channel standard deviation, likewise.
        regions: Whether sensitive regions of the images are marked (`fl.data.Part.regions`).
    """

    task: Task
    channels: int
    size: int
    images: Mapping[str, int]
    public: bool
    fingerprint: str
    groups: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    regions: bool = False


@dataclass(frozen=True)
class ModelTraits:
    """What a configured model is, for deciding what applies to it; tests compare it with the built model.

    Attributes:
        batch_norm: It has batch-norm layers.
        head_bias: Its head has a bias.
        non_negative_features: The head's input is never negative.
        convolution: It has a convolution (and so a layer for Grad-CAM).
        twice_differentiable: Smooth activations only, so that second derivatives are useful.
        min_size: Smallest image side, in pixels.
        channels: Image channels it takes; None for any.
        mflop_per_image: Multiply-adds of one forward pass at the data's size, in millions times two.
        min_train_batch: Images that a batch needs with `batch_norm: train`: 2 where batch norm sees maps of a
            single pixel, which have no batch statistics in one image.
    """

    batch_norm: bool
    head_bias: bool
    non_negative_features: bool
    convolution: bool
    twice_differentiable: bool
    min_size: int
    channels: tuple[int, ...] | None
    mflop_per_image: float
    min_train_batch: int = 1


@dataclass(frozen=True)
class Setting:
    """What `compatible` decides on: the rest of a trial, as cards see it.

    For a recorded observation `federation` is None, and `data` and `model` come from the file. `public` is
    the data set whose public part is the attacker's, where that is not the trial's own.
    """

    data: DataInfo
    model: ModelTraits
    federation: FederationSpec | None
    threat_model: ThreatModel
    observes: ObservationKind
    attacker: Literal["static", "adaptive"] = "static"
    public: DataInfo | None = None
    form: ObservationForm = "shared"

    @property
    def sees(self) -> UpdateKind | None:
        """The kind of update that is observed; None for a recorded observation, whose file knows."""
        if self.federation is None:
            return None
        return "gradient" if self.form == "parameter_difference" else self.federation.sends

    @property
    def length_known(self) -> bool:
        """Whether the update tells how long the gradient is, and not only where it points."""
        shared_gradient = self.form == "shared" and self.sees != "delta"
        return shared_gradient or self.threat_model.knowledge.local_hyperparameters

    @property
    def public_images(self) -> int:
        """Number of images that the attacker has where `knowledge.public_data` grants them."""
        return (self.public or self.data).images.get("public", 0)
