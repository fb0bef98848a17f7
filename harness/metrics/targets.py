"""A trial's targets as the judge sees them: with both sides of the wall, or blind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fl.errors import BenchError
from harness.metrics.labels import Label

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PrivateTarget:
    """What lies behind one target, whatever attack it meets.

    Attributes:
        target_id: The target.
        truth: The n private images, `n x C x H x W` in [0, 1]; n may be 0 (an empty Poisson batch).
        image_ids: Their ids.
        labels: Their labels.
        protected: The batch as the client trained on it, where the defense changed it, else None.
    """

    target_id: str
    truth: Tensor
    image_ids: tuple[str, ...]
    labels: tuple[Label, ...]
    protected: Tensor | None = None

    def __post_init__(self) -> None:
        assert len(self.truth) == len(self.image_ids) == len(self.labels)


@dataclass(frozen=True, kw_only=True)
class ScoredTarget(PrivateTarget):
    """One target with both sides of the wall.

    Attributes:
        reconstruction: What the attack made, `m x C x H x W`.
        recovered_labels: Labels it recovered, `m` (or `m x outputs`), or None.

    Raises:
        BenchError: If reconstructions do not have the shape of the private images.
    """

    reconstruction: Tensor
    recovered_labels: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reconstruction.shape[1:] != self.truth.shape[1:]:
            expected, got = (" x ".join(map(str, x.shape[1:])) for x in (self.truth, self.reconstruction))
            raise BenchError(
                f"target {self.target_id}: expected reconstructions of shape {expected}, got {got}"
            )


@dataclass(frozen=True)
class BlindTarget:
    """A target whose truth is not known or has no pixels.

    Attributes:
        target_id: The target.
        reconstruction: What the attack made, `m x C x H x W`.
        recovered_labels: Labels it recovered, `m` (or `m x outputs`), or None.
    """

    target_id: str
    reconstruction: Tensor
    recovered_labels: Tensor | None = None
