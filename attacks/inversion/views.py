"""Random views of images, differentiable in their pixels.

Source: Yuan et al. 2023, arXiv 2302.09814, section on image reconstruction, and the authors' code for the
ranges.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.inversion.cards_plgmi import ViewsConfig

DRAWS = 8
"""Numbers from U(0, 1) that make a view."""


def views(images: Tensor, draws: Tensor, config: ViewsConfig) -> Tensor:
    """Return one view of each image.

    Crop, mirroring and rotation are one resampling, with zeros beyond the edges. Brightness is a factor, then
    contrast a factor of the distance to the image's mean, both clamped to [0, 1].

    Args:
        images: `n x C x H x H` in [0, 1].
        draws: `n x DRAWS` from U(0, 1).
        config: How far views go.

    Returns:
        `n x C x H x H` in [0, 1].
    """
    draws = draws.to(images)
    seen = resample(images, placement(draws, config))
    brightness = _factor(draws[:, 6], config.brightness)
    seen = (brightness * seen).clamp(0, 1)
    mean = seen.mean((1, 2, 3), keepdim=True)
    return (mean + _factor(draws[:, 7], config.contrast) * (seen - mean)).clamp(0, 1)


def placement(draws: Tensor, config: ViewsConfig) -> Tensor:
    """Return where the pixels of views come from: `n x 2 x 3` affine maps of (x, y) in [-1, 1].

    The view is turned, then mirrored, then a part of the image.
    """
    area, across, down, mirrored, turned, angle = draws[:, :6].unbind(1)
    side = (config.crop + (1 - config.crop) * area).sqrt()
    mirror = torch.where((mirrored < 0.5) & config.flip, -1.0, 1.0)
    angle = torch.where(turned < 0.5, (2 * angle - 1) * math.radians(config.rotation), 0.0)
    sine, cosine = angle.sin(), angle.cos()
    rows = [
        torch.stack([side * mirror * cosine, side * mirror * sine, (1 - side) * (2 * across - 1)], 1),
        torch.stack([-side * sine, side * cosine, (1 - side) * (2 * down - 1)], 1),
    ]
    return torch.stack(rows, 1)


def resample(images: Tensor, maps: Tensor) -> Tensor:
    """Return what affine maps read from images, bilinearly, with zeros beyond the edges.

    As torch's `affine_grid` and `grid_sample` with `align_corners=False`, whose derivative is not
    deterministic on a GPU; that of `gather` is.

    Args:
        images: `n x C x H x H`.
        maps: `n x 2 x 3`, from (x, y) of a result's pixel to that of the image, the edges being at -1 and 1.
    """
    n, channels, size, _ = images.shape
    centres = (2 * torch.arange(size, device=images.device) + 1) / size - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    places = torch.stack([x.flatten(), y.flatten(), torch.ones(size * size, device=images.device)])
    across, down = (((maps @ places) + 1) * size / 2 - 0.5).unbind(1)  # n x pixels each
    left, above = across.floor(), down.floor()
    flat = images.flatten(2)
    found = torch.zeros_like(flat)
    for column, row in ((left, above), (left + 1, above), (left, above + 1), (left + 1, above + 1)):
        share = (1 - (across - column).abs()) * (1 - (down - row).abs())
        inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
        index = (row.clamp(0, size - 1) * size + column.clamp(0, size - 1)).long()
        read = flat.gather(2, index[:, None].expand(n, channels, -1))
        found = found + (share * inside)[:, None] * read
    return found.view_as(images)


def _factor(draw: Tensor, extent: float) -> Tensor:
    return (1 + extent * (2 * draw - 1)).view(-1, 1, 1, 1)
