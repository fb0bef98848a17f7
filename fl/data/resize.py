"""Bilinear resizing of image tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


def resize(images: Tensor, size: int) -> Tensor:
    """Return images `n x C x H x W` in [0, 1] as `n x C x size x size`, bilinear, antialiased when shrunk.

    Images that have the size already are returned as they are.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    shrinks = size < max(height, width)
    resized = F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=shrinks)
    return resized.clamp(0, 1)
