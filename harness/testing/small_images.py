"""Images of the small problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from fl.types import ImageSpec


@dataclass(frozen=True)
class SmallPublicData:
    """The attacker's own images (`fl.types.PublicData`)."""

    images: Tensor
    labels: Tensor

    @property
    def mean_image(self) -> Tensor:
        """`C x H x W`, the mean of `images`."""
        return self.images.mean(0)


def blobs(n: int, image: ImageSpec, stream: torch.Generator) -> Tensor:
    """Draw n smooth images in [0, 1], `n x C x H x W`: 4 x 4 noise, enlarged."""
    coarse = torch.rand(n, image.channels, 4, 4, generator=stream)
    return F.interpolate(coarse, size=(image.size, image.size), mode="bilinear", align_corners=True)
