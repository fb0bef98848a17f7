"""Sums over images and positions whose last bits do not depend on the lane.

Where channels are last in memory, a sum over everything else runs down columns, and a processor's vectors
take the columns in blocks; left-over columns are added up in another order. Here columns that do not fill
whole blocks are added up by halves, one elementwise addition after the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCK = 64
"""Columns that the widest vectors add up together."""


def add_bias(outputs: Tensor, bias: Tensor, *, once: bool) -> Tensor:
    """Add `B C` biases to `n x (B C) x ...`.

    The biases' gradient is given where a graph is built, or for a bias that is differentiated in `once`.
    """
    shifted: Tensor = _AddBias.apply(outputs, bias, once)
    return shifted


def spatial_mean(images: Tensor) -> Tensor:
    """Return the mean of `n x C x H x W` over positions, `n x C`."""
    positions = images.permute(0, 2, 3, 1).flatten(1, 2).transpose(0, 1)
    return _fold(positions) / len(positions)


def channel_sums(outputs: Tensor) -> Tensor:
    """Return the sum of `n x C x ...` over all but channels, `C`."""
    sums: Tensor = _ChannelSums.apply(outputs)
    return sums


class _AddBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, outputs: Tensor, bias: Tensor, once: bool) -> Tensor:
        ctx.once = once
        return outputs + _beside(bias, outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        wanted = ctx.once or torch.is_grad_enabled()
        return gradients[0], channel_sums(gradients[0]) if wanted else None, None


class _ChannelSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, outputs: Tensor) -> Tensor:
        ctx.like = outputs.shape
        if outputs.shape[1] % BLOCK == 0:
            return outputs.sum([axis for axis in range(outputs.ndim) if axis != 1])
        return _fold(outputs.movedim(1, -1).reshape(-1, outputs.shape[1]))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (len(ctx.like) - 2))
        return gradients[0].view(shape).expand(ctx.like)


def _beside(bias: Tensor, outputs: Tensor) -> Tensor:
    return bias.view(-1, *[1] * (outputs.ndim - 2))


def _fold(rows: Tensor) -> Tensor:
    """Add up rows by halves."""
    while len(rows) > 1:
        half = len(rows) // 2
        folded = rows[:half] + rows[half : 2 * half]
        rows = torch.cat([folded[:-1], folded[-1:] + rows[-1:]]) if len(rows) % 2 else folded
    return rows[0]
