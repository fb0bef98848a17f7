"""Products with a convolution's weight gradient that is not formed.

Where a layer has few positions P, its gradient, a product of P columns of outputs' gradients with P of
windows, need not be formed: its norm, and its action on images, take only `P x P` inner products of each,
and its product with the observed gradient g* is that of the outputs' gradient with g*'s convolution (the
ghost norm of Goodfellow 2015, arXiv 1510.01799, and for convolutions Bu et al. 2022, arXiv 2205.10683).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from attacks.engine.constant import Constant
from attacks.engine.convolution import Pair
from attacks.engine.filters import Window
from attacks.engine.sums import channel_sums

GHOST_SHARE = 0.8
"""Inner products of positions are worth it up to this share of the two convolutions that they save."""


def is_ghost(window: Window) -> bool:
    """Whether inner products take less work than a gradient."""
    return _share(window) < GHOST_SHARE


def lane_products(
    inputs: Tensor, slopes: Tensor, observed: Constant, window: Window
) -> tuple[Tensor, Tensor]:
    """Return <g, g*> and <g, g> of lanes' weight gradients g, `B` each, differentiable once in both tensors.

    Args:
        inputs: What the layer took in, `n x (B C) x H x W`, channels last in memory.
        slopes: Of its outputs, `n x (B O) x H' x W'`, likewise.
        observed: A convolution with g*.
        window: How one lane's kernels slide.
    """
    found: tuple[Tensor, Tensor] = _LaneProducts.apply(inputs, slopes, observed, window)
    return found


class _LaneProducts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, slopes: Tensor, observed: Constant, window: Window
    ) -> tuple[Tensor, Tensor]:
        pixels, positions = (_by_lane(images, observed.lanes) for images in (inputs, slopes))
        beside = observed.forward(inputs)
        windows = window_products(torch.bmm(pixels, pixels.mT), window)
        between = torch.bmm(positions, positions.mT)
        ctx.save_for_backward(slopes, beside, pixels, positions, windows, between)
        ctx.observed, ctx.window = observed, window
        dots = channel_sums(slopes * beside).view(observed.lanes, -1).sum(1)
        return dots, (windows * between).flatten(1).sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        slopes, beside, pixels, positions, windows, between = ctx.saved_tensors
        observed: Constant = ctx.observed
        window: Window = ctx.window
        to_dots = _beside(gradients[0], slopes)
        twice = 2 * gradients[1].view(-1, 1, 1)
        along = torch.bmm(windows, positions * twice)
        to_slopes = torch.addcmul(_side_by_side(along, window.images, window.size), beside, to_dots)
        spread = torch.bmm(pixel_products(between, window), pixels * twice)
        inside = _side_by_side(spread, window.images, (window.height, window.width))
        return observed.backward(slopes * to_dots) + inside, to_slopes, None, None


def _by_lane(images: Tensor, lanes: int) -> Tensor:
    """Turn `n x (B C) x H x W` into `B x (n H W) x C`."""
    n, channels, height, width = images.shape
    last = images.permute(0, 2, 3, 1).reshape(n, height, width, lanes, channels // lanes)
    return last.permute(3, 0, 1, 2, 4).flatten(1, 3).contiguous()


def _side_by_side(rows: Tensor, images: int, size: Pair) -> Tensor:
    """Turn `B x (n H W) x C` into `n x (B C) x H x W`, channels last."""
    grid = rows.view(len(rows), images, *size, -1)
    return grid.permute(1, 2, 3, 0, 4).flatten(3).permute(0, 3, 1, 2)


def _beside(values: Tensor, like: Tensor) -> Tensor:
    """Repeat `B` for each lane's channels of `n x (B C) x H x W`."""
    return values.repeat_interleave(like.shape[1] // len(values)).view(1, -1, 1, 1)


def _share(window: Window) -> float:
    """Return the work of inner products of positions over that of a convolution."""
    rows, columns = window.size
    windows = window.images * rows * columns
    if window.kernel == (1, 1):
        return 2 * windows * (window.outputs + window.channels) / (window.channels * window.outputs)
    pixels = window.images * window.height * window.width
    inner = 2 * windows**2 * window.outputs + 2 * pixels**2 * window.channels
    return inner / (windows * window.channels * window.outputs * window.kernel[0] * window.kernel[1])


def window_products(pixels: Tensor, window: Window) -> Tensor:
    """From inner products of pixels to those of windows, `B x P x P`: sums along diagonals.

    Args:
        pixels: `B x (n H W) x (n H W)`.
        window: What a lane's kernels slide over.
    """
    lanes, n, (rows, columns) = len(pixels), window.images, window.size
    grid = pixels.view(lanes, n, window.height, window.width, n, window.height, window.width)
    lines = pixels.new_zeros(lanes, n, rows, window.width, n, rows, window.width)
    for here, there in _reaches(window, 0):
        lines[:, :, here, :, :, here] += grid[:, :, there, :, :, there]
    sums = pixels.new_zeros(lanes, n, rows, columns, n, rows, columns)
    for here, there in _reaches(window, 1):
        sums[:, :, :, here, :, :, here] += lines[:, :, :, there, :, :, there]
    return sums.view(lanes, n * rows * columns, n * rows * columns)


def pixel_products(positions: Tensor, window: Window) -> Tensor:
    """Do the transpose of `window_products`."""
    lanes, n, (rows, columns) = len(positions), window.images, window.size
    spread = positions.view(lanes, n, rows, columns, n, rows, columns)
    lines = positions.new_zeros(lanes, n, rows, window.width, n, rows, window.width)
    for here, there in _reaches(window, 1):
        lines[:, :, :, there, :, :, there] += spread[:, :, :, here, :, :, here]
    grid = positions.new_zeros(lanes, n, window.height, window.width, n, window.height, window.width)
    for here, there in _reaches(window, 0):
        grid[:, :, there, :, :, there] += lines[:, :, here, :, :, here]
    pixels = n * window.height * window.width
    return grid.view(lanes, pixels, pixels)


def _reaches(window: Window, axis: int) -> Iterator[tuple[slice, slice]]:
    """Yield, for each line of the kernel, the windows in which it lies on the images, and where it lies."""
    extent, steps = (window.height, window.width)[axis], window.size[axis]
    stride = window.stride[axis]
    for line in range(window.kernel[axis]):
        offset = line - window.padding[axis]
        first = max(0, -(offset // stride))
        last = min(steps - 1, (extent - 1 - offset) // stride)
        if first <= last:
            start, end = first * stride + offset, last * stride + offset + 1
            yield slice(first, last + 1), slice(start, end, stride)
