"""Convolutions as they are, with the weight gradient formed, or not (`attacks.engine.grams`)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.engine.constant import Constant
from attacks.engine.filters import Filter, Window, last, plus
from attacks.engine.grams import pixel_products, window_products


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
        self._pixels = self._x.permute(0, 2, 3, 1).flatten(0, 2)
        self._positions = self._d.permute(0, 2, 3, 1).flatten(0, 2)
        self._windows = window_products((self._pixels @ self._pixels.t()).unsqueeze(0), window)[0]
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
        along = pixel_products(self._d_products.unsqueeze(0), window)[0] @ self._pixels
        along = along.view(window.images, window.height, window.width, -1).permute(0, 3, 1, 2)
        moved = torch.add(moved, self._target.backward(self._d), alpha=observed)
        return torch.add(moved, along, alpha=gradient)


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
