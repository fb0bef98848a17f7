"""From style vectors to images, block by block: what all generators have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Synthesis(nn.Module):
    """From style vectors to images, block by block.

    Args:
        blocks: From `n x style` to feature maps, then from maps to maps.
        to_images: From the last maps to `n x C x H x W` in any range.
        shown: Side that images are averaged down to, or None.
        styled: Whether every block takes the style vectors besides its features.

    Attributes:
        blocks: As given.
        to_images: As given.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], to_images: nn.Module, shown: int | None, *, styled: bool = False
    ) -> None:
        super().__init__()
        self._shown = shown
        self._styled = styled
        self.blocks = nn.ModuleList(blocks)
        self.to_images = to_images

    def forward(self, styles: Tensor) -> Tensor:
        """From `n x style` to images, `n x C x H x W` in [0, 1]."""
        return self.after(styles, 0, styles)

    def enter(self, features: Tensor, block: int, styles: Tensor) -> Tensor:
        """Return what the block of that number makes of features; block 0 takes the styles themselves."""
        layer = self.blocks[block]
        found: Tensor = layer(features, styles) if self._styled else layer(features)
        return found

    def after(self, features: Tensor, block: int, styles: Tensor) -> Tensor:
        """Return the images that features entering the block of that number become.

        Args:
            features: `n x ...`; for the number of blocks itself, what the last one returned.
            block: Its number.
            styles: `n x style`, where every block takes them.
        """
        for number in range(block, len(self.blocks)):
            features = self.enter(features, number, styles)
        images: Tensor = (self.to_images(features).tanh() + 1) / 2
        return images if self._shown is None else averaged(images, self._shown)


def averaged(images: Tensor, size: int) -> Tensor:
    """Return `n x C x H x H` images averaged by area to `size` pixels a side.

    On a GPU by matrices, since the derivative of torch's pooling is not deterministic there.
    """
    if not images.is_cuda:
        return F.adaptive_avg_pool2d(images, size)
    rows = area_means(images.shape[-1], size).to(images)
    return rows @ images @ rows.T


def area_means(pixels: int, size: int) -> Tensor:
    """Return the matrix `size x pixels` that averages as adaptive pooling does along one axis."""
    places = torch.arange(size)
    first, last = places * pixels // size, -(-(places + 1) * pixels // size)
    columns = torch.arange(pixels)
    covered = (columns >= first[:, None]) & (columns < last[:, None])
    return covered / (last - first)[:, None]
