"""Convolutions as they are, with the weight gradient formed, or not.

Where a layer has few positions P, its gradient, a product of P columns of outputs' gradients with P of
windows, need not be formed: its norm, and its action on images, take only `P x P` inner products of each,
and its product with the observed gradient g* is that of the outputs' gradient with g*'s convolution (the
ghost norm of Goodfellow 2015, arXiv 1510.01799, and for convolutions Bu et al. 2022, arXiv 2205.10683).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.engine.constant import Constant
from attacks.engine.convolution import Pair
from attacks.engine.filters import Filter, Window, last, plus


class DirectFilter(Filter):
    """A convolution, its weight gradient and direction held in full."""

    def __init__(self, weight: Tensor, observed: Tensor | None, window: Window) -> None:
        super().__init__(None if observed is None else _channels_inside(observed))
        self._window = window
        self._like = last(weight)
        self._weight = Constant(weight, window)
        self._direction: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve."""
        self._x = inputs
        return self._weight.forward(inputs)

    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor | None:
        """Take in the outputs' gradient."""
        self._d, self._computed = gradient, None
        return self._weight.backward(gradient) if wanted else None

    def compute(self) -> Tensor:
        """Return the weights' gradient, `O x rows x columns x C`."""
        wanted = (False, True, False)
        return _channels_inside(_derivatives(self._d, self._x, self._like, self._window, wanted)[1])

    def shaped(self, gradient: Tensor) -> Tensor:
        """View it as the model's parameter."""
        return gradient.permute(0, 3, 1, 2)

    def turn_to(self, direction: Tensor | None) -> None:
        """Set the direction, as a parameter."""
        self._direction = None if direction is None else last(direction)

    def tangent(self, tangents: Tensor | None) -> Tensor | None:
        """Return the outputs' tangent."""
        moved = None if tangents is None else self._weight.forward(tangents)
        if self._direction is None:
            return moved
        window = self._window
        return plus(moved, F.conv2d(self._x, self._direction, None, window.stride, window.padding))

    def tangent_backward(self, tangent: Tensor) -> Tensor:
        """Return the tangent of the inputs' gradient."""
        moved = self._weight.backward(tangent)
        if self._direction is None:
            return moved
        wanted = (True, False, False)
        return moved + _derivatives(self._d, self._x, self._direction, self._window, wanted)[0]


class GhostFilter(DirectFilter):
    """A convolution over few positions, whose weight gradient is formed only where it is asked for itself."""

    def __init__(self, weight: Tensor, observed: Tensor, window: Window) -> None:
        super().__init__(weight, observed, window)
        self._target = Constant(observed, window)
        self._along: tuple[float, float] | None = None

    def products(self) -> tuple[Tensor, Tensor]:
        """Return <g, g*> and <g, g>."""
        window = self._window
        self._padded = F.pad(self._x.permute(0, 2, 3, 1), _twice(window.padding)).flatten(0, 2)
        self._positions = self._d.permute(0, 2, 3, 1).flatten(0, 2)
        self._windows = _window_products(self._padded @ self._padded.t(), window)
        self._d_products = self._positions @ self._positions.t()
        self._beside = self._target.forward(self._x)
        return (self._d * self._beside).sum(), (self._windows * self._d_products).sum()

    def turn(self, along_observed: float, along_gradient: float) -> None:
        """Set the direction."""
        self._direction, self._along = None, (along_observed, along_gradient)

    def turn_to(self, direction: Tensor | None) -> None:
        """Set the direction."""
        super().turn_to(direction)
        self._along = None

    def tangent(self, tangents: Tensor | None) -> Tensor | None:
        """Return the outputs' tangent."""
        moved = super().tangent(tangents)
        if self._along is None:
            return moved
        observed, gradient = self._along
        along = self._windows @ self._positions
        rows, columns = self._window.size
        along = along.view(-1, rows, columns, along.shape[1]).permute(0, 3, 1, 2)
        return plus(moved, torch.add(self._beside * observed, along, alpha=gradient))

    def tangent_backward(self, tangent: Tensor) -> Tensor:
        """Return the tangent of the inputs' gradient."""
        moved = super().tangent_backward(tangent)
        if self._along is None:
            return moved
        window, (observed, gradient) = self._window, self._along
        along = _pixel_products(self._d_products, window) @ self._padded
        (top, left), n = window.padding, window.images
        along = along.view(n, window.height + 2 * top, window.width + 2 * left, -1)
        inside = along[:, top : top + window.height, left : left + window.width].permute(0, 3, 1, 2)
        moved = torch.add(moved, self._target.backward(self._d), alpha=observed)
        return torch.add(moved, inside, alpha=gradient)


def _twice(padding: Pair) -> tuple[int, ...]:
    """Return padding of `n x H x W x C` for `torch.nn.functional.pad`."""
    return (0, 0, padding[1], padding[1], padding[0], padding[0])


def _derivatives(
    gradient: Tensor, images: Tensor, weight: Tensor, window: Window, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    computed: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        last(gradient),
        last(images),
        weight,
        None,
        window.stride,
        window.padding,
        (1, 1),
        False,
        (0, 0),
        1,
        wanted,
    )
    return computed


def _channels_inside(weight: Tensor) -> Tensor:
    """Return `O x C x rows x columns` as `O x rows x columns x C`."""
    return weight.permute(0, 2, 3, 1).contiguous()


def _grid(window: Window) -> Pair:
    return window.height + 2 * window.padding[0], window.width + 2 * window.padding[1]


def _window_products(pixels: Tensor, window: Window) -> Tensor:
    """From inner products of padded pixels to those of windows, `P x P`: sums along diagonals."""
    n, (height, width), (rows, columns) = window.images, _grid(window), window.size
    (down, across), (kernel_rows, kernel_columns) = window.stride, window.kernel
    a, b, c, d, e, f = pixels.view(n, height, width, n, height, width).stride()
    steps = pixels.as_strided(
        (kernel_rows, kernel_columns, n, rows, columns, n, rows, columns),
        (b + e, c + f, a, down * b, across * c, d, down * e, across * f),
    )
    positions = n * rows * columns
    return steps.sum((0, 1)).view(positions, positions)


def _pixel_products(positions: Tensor, window: Window) -> Tensor:
    """Do the transpose of `_window_products`."""
    n, (height, width), (rows, columns) = window.images, _grid(window), window.size
    (down, across), (kernel_rows, kernel_columns) = window.stride, window.kernel
    spread = positions.view(n, rows, columns, n, rows, columns)
    pixels = positions.new_zeros(n, height, width, n, height, width)
    for i in range(kernel_rows):
        vertical = slice(i, i + (rows - 1) * down + 1, down)
        for j in range(kernel_columns):
            horizontal = slice(j, j + (columns - 1) * across + 1, across)
            pixels[:, vertical, horizontal, :, vertical, horizontal] += spread
    return pixels.view(n * height * width, n * height * width)
