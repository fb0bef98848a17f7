"""Resizing of image and mask tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
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


def resize_mask(masks: Tensor, size: int) -> Tensor:
    """Return masks `n x C x H x W` bool as `n x C x size x size`: True where more than half the area is.

    The grid is that of `resize`. A mask much smaller than a new pixel vanishes. Masks that have the size
    already are returned as they are.
    """
    height, width = masks.shape[-2:]
    if (height, width) == (size, size):
        return masks
    # lengths are counted in units of which an old row has `size` and a new one `height`
    covered = _overlap(height, size) @ masks.long() @ _overlap(width, size).T
    return 2 * covered > height * width


def _overlap(old: int, new: int) -> Tensor:
    """Return `new x old`: the length that a new and an old pixel share, on a line of `old * new` units."""
    start, other = torch.arange(new).view(-1, 1) * old, torch.arange(old).view(1, -1) * new
    return (torch.minimum(start + old, other + new) - torch.maximum(start, other)).clamp(min=0)
