"""3x3 convolutions with up to four times fewer multiplications (Winograd's minimal filtering).

An output tile of 4 x 4 needs an input tile of 6 x 6. Both are polynomials evaluated at six points, where a
convolution is one product each: y = A^T [(G w G^T) * (B^T x B)] A, summed over channels, which makes it 36
matrix products for all tiles together. What is transformed once serves several passes: the image gradient
and the weight gradient are the transposes of the same form, and so are all tangents. With tiles of 2 x 2
there are 16 products, of less data where images are small.

Source: Lavin and Gray 2016, arXiv 1509.09308, sections 4.1 to 4.3; matrices by the Toom-Cook construction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.engine.filters import Filter, Scratch, Window
from attacks.engine.layers import CACHE_LINE

KERNEL = 3
POINTS: Mapping[int, tuple[float, ...]] = {
    2: (0.0, 1.0, -1.0),
    4: (0.0, 2 / 3, -2 / 3, 1.5, -1.5),
}
"""Where polynomials are evaluated, besides at infinity, by the outputs of a tile on a side.

With 2/3 and its inverse rounding is half of what it is with the usual 1 and 2."""
LARGE = 24
"""Height and width of images from which on tiles are 4 x 4."""
BLOCK = 600_000
"""Numbers of a block of transformed weights, which are never held in full: they would not stay in cache."""


class Transforms(NamedTuple):
    """Matrices on flattened tiles: two-dimensional transforms are Kronecker squares.

    Attributes:
        inputs: B^T x B^T, for tiles of 4 x 4 `36 x 36`.
        filters: G x G, `36 x 9`.
        outputs: A^T x A^T, `16 x 36`.
    """

    inputs: Tensor
    filters: Tensor
    outputs: Tensor


@cache
def transforms(tile: int, dtype: torch.dtype, device: torch.device) -> Transforms:
    """Return the matrices for `tile x tile` outputs."""
    points = np.array(POINTS[tile])
    side = len(points) + 1
    inputs, filters = np.zeros((side, side)), np.zeros((side, KERNEL))
    outputs = np.zeros((tile, side))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        inputs[i, : side - 1] = np.poly(others)[::-1]
        filters[i] = point ** np.arange(KERNEL) / np.prod(point - others)
        outputs[:, i] = point ** np.arange(tile)
    inputs[-1], filters[-1, -1], outputs[-1, -1] = np.poly(points)[::-1], 1, 1
    squares = (np.kron(matrix, matrix) for matrix in (inputs, filters, outputs))
    return Transforms(*(torch.from_numpy(square).to(device, dtype) for square in squares))


class WinogradFilter(Filter):
    """A 3x3 convolution with stride 1 and padding 1, its weight gradient and direction held in full."""

    def __init__(self, weight: Tensor, observed: Tensor | None, window: Window, scratch: Scratch) -> None:
        super().__init__(None if observed is None else _flat(observed))
        self._scratch = scratch
        self._tile = 4 if min(window.height, window.width) >= LARGE else 2
        self._side = self._tile + KERNEL - 1
        self._by = transforms(self._tile, weight.dtype, weight.device)
        self._images, self._height, self._width = window.images, window.height, window.width
        self._rows, self._columns = -(-window.height // self._tile), -(-window.width // self._tile)
        self._channels, self._outputs = window.channels, window.outputs
        self._weight = (self._by.filters @ _flat(weight)).view(self._side**2, self._channels, -1)
        self._direction: Tensor | None = None
        tiles = self._images * self._rows * self._columns
        self._x = weight.new_empty(self._side**2, tiles, self._channels)
        self._d = weight.new_empty(self._side**2, tiles, self._outputs)
        shape = (KERNEL**2, self._channels, self._outputs)
        self._weight_gradient, self._own_direction = weight.new_empty(shape), weight.new_empty(shape)

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve."""
        self._tiles(inputs, self._x)
        return self._untiled(torch.bmm(self._x, self._weight, out=self._taken("products", self._outputs)))

    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor | None:
        """Take in the outputs' gradient."""
        self._output_tiles(gradient, self._d)
        self._computed = None
        if not wanted:
            return None
        products = self._taken("products", self._channels)
        return self._overlapped(torch.bmm(self._d, self._weight.transpose(1, 2), out=products))

    def compute(self) -> Tensor:
        """Return the weights' gradient, `9 x (C O)`."""
        for block in self._blocks(self._channels, beside=self._outputs):
            here = self._x[:, :, block].transpose(1, 2)
            shape = (self._side**2, here.shape[1], self._outputs)
            products = torch.bmm(here, self._d, out=self._scratch.take("weights", shape, here))
            flat = self._by.filters.t() @ products.view(self._side**2, -1)
            self._weight_gradient[:, block] = flat.view(KERNEL**2, -1, self._outputs)
        return self._weight_gradient.view(KERNEL**2, -1)

    def shaped(self, gradient: Tensor) -> Tensor:
        """View `9 x (C O)` as the model's parameter."""
        shaped: Tensor = gradient.view(KERNEL, KERNEL, self._channels, self._outputs)
        return shaped.permute(3, 2, 0, 1)

    def turn(self, along_observed: float, along_gradient: float) -> None:
        """Set the direction to a combination of g* and g."""
        assert self.observed is not None
        direction = torch.mul(self.observed, along_observed, out=self._own_direction.view_as(self.observed))
        direction.add_(self._gradient, alpha=along_gradient)
        self._direction = self._own_direction

    def turn_to(self, direction: Tensor | None) -> None:
        """Set the direction, as a parameter."""
        self._direction = None
        if direction is not None:
            self._direction = _flat(direction).view(KERNEL**2, self._channels, self._outputs)

    def tangent(self, tangents: Tensor | None) -> Tensor | None:
        """Return the outputs' tangent."""
        if tangents is None and self._direction is None:
            return None
        total = self._taken("products", self._outputs)
        if tangents is None:
            total.zero_()
        else:
            torch.bmm(self._tiles(tangents, self._taken("tiles", self._channels)), self._weight, out=total)
        if self._direction is not None:
            for block in self._blocks(self._channels, beside=self._outputs):
                total.baddbmm_(self._x[:, :, block], self._turned(self._direction[:, block]))
        return self._untiled(total)

    def tangent_backward(self, tangent: Tensor) -> Tensor:
        """Return the tangent of the inputs' gradient."""
        tiles = self._output_tiles(tangent, self._taken("tiles", self._outputs))
        total = self._taken("products", self._channels)
        torch.bmm(tiles, self._weight.transpose(1, 2), out=total)
        if self._direction is not None:
            for block in self._blocks(self._outputs, beside=self._channels):
                turned = self._turned(self._direction[:, :, block])
                total.baddbmm_(self._d[:, :, block], turned.transpose(1, 2))
        return self._overlapped(total)

    def _blocks(self, channels: int, *, beside: int) -> Iterator[slice]:
        """Yield parts of the channels of one side of the weights."""
        size = max(1, BLOCK // (self._side**2 * beside * CACHE_LINE)) * CACHE_LINE
        for start in range(0, channels, size):
            yield slice(start, min(start + size, channels))

    def _turned(self, direction: Tensor) -> Tensor:
        """Transform a block of the direction."""
        shape = (self._side**2, *direction.shape[1:])
        turned = self._scratch.take("weights", shape, direction)
        torch.mm(self._by.filters, direction.reshape(KERNEL**2, -1), out=turned.view(self._side**2, -1))
        return turned

    def _taken(self, use: str, channels: int) -> Tensor:
        return self._scratch.take(use, (self._side**2, len(self._x[0]), channels), self._x)

    def _tiles(self, images: Tensor, out: Tensor) -> Tensor:
        """Transform the overlapping input tiles of `n x C x H x W` to `36 x tiles x C`."""
        below = self._tile * self._rows + 1 - self._height
        right = self._tile * self._columns + 1 - self._width
        padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below)).contiguous()
        image, row, column, channel = padded.stride()
        shape = (self._side, self._side, self._images, self._rows, self._columns, self._channels)
        steps = (row, column, image, self._tile * row, self._tile * column, channel)
        flat = self._scratch.take("flat", shape, images).copy_(padded.as_strided(shape, steps))
        torch.mm(self._by.inputs, flat.view(self._side**2, -1), out=out.view(self._side**2, -1))
        return out

    def _overlapped(self, tiles: Tensor) -> Tensor:
        """Do the transpose of `_tiles`."""
        n, rows, columns, tile, channels = self._images, self._rows, self._columns, self._tile, self._channels
        shape = (self._side, self._side, n, rows, columns, channels)
        parts = self._scratch.take("flat", shape, tiles)
        by = self._by.inputs.t()
        torch.mm(by, tiles.view(self._side**2, -1), out=parts.view(self._side**2, -1))
        sums = self._scratch.take("sums", (n, rows + 1, tile, columns + 1, tile, channels), tiles).zero_()
        inside, beyond = (slice(tile), slice(tile), 0), (slice(tile, None), slice(KERNEL - 1), 1)
        for down, to_down, row in (inside, beyond):
            for across, to_across, column in (inside, beyond):
                place = sums[:, row : row + rows, to_down, column : column + columns, to_across]
                place += parts[down, across].permute(2, 3, 0, 4, 1, 5)
        whole = sums.view(n, tile * (rows + 1), tile * (columns + 1), channels)
        inner = whole[:, 1 : 1 + self._height, 1 : 1 + self._width]
        return inner.clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)

    def _untiled(self, tiles: Tensor) -> Tensor:
        """Return `n x O x H x W` of `36 x tiles x O`."""
        n, rows, columns, tile = self._images, self._rows, self._columns, self._tile
        parts = self._scratch.take("flat", (tile, tile, n, rows, columns, self._outputs), tiles)
        torch.mm(self._by.outputs, tiles.view(self._side**2, -1), out=parts.view(tile**2, -1))
        whole = tiles.new_empty(n, rows, tile, columns, tile, self._outputs)
        whole.copy_(parts.permute(2, 3, 0, 4, 1, 5))
        inner = whole.view(n, tile * rows, tile * columns, -1)[:, : self._height, : self._width]
        return inner.contiguous().permute(0, 3, 1, 2)

    def _output_tiles(self, outputs: Tensor, out: Tensor) -> Tensor:
        """Do the transpose of `_untiled`."""
        n, rows, columns, tile = self._images, self._rows, self._columns, self._tile
        below, right = tile * rows - self._height, tile * columns - self._width
        padded = F.pad(outputs.permute(0, 2, 3, 1), (0, 0, 0, right, 0, below))
        flat = self._scratch.take("flat", (tile, tile, n, rows, columns, self._outputs), outputs)
        flat.copy_(padded.reshape(n, rows, tile, columns, tile, -1).permute(2, 4, 0, 1, 3, 5))
        torch.mm(self._by.outputs.t(), flat.view(tile**2, -1), out=out.view(self._side**2, -1))
        return out


def _flat(weight: Tensor) -> Tensor:
    """Return `O x C x 3 x 3` as `9 x (C O)`."""
    return weight.permute(2, 3, 1, 0).reshape(KERNEL**2, -1)
