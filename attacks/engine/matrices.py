"""Linear layers, and convolutions that are linear layers at every position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attacks.engine.filters import Filter, Window, plus

if TYPE_CHECKING:
    from torch import Tensor


class Matrix(Filter):
    """A linear layer on `n x features`.

    Args:
        weight: `outputs x features`.
        observed: g*.
        ghost: Whether the gradient is formed only where it is asked for itself.
    """

    def __init__(self, weight: Tensor, observed: Tensor | None, *, ghost: bool) -> None:
        super().__init__(observed)
        self._weight = weight
        self._ghost = ghost
        self._direction: Tensor | None = None
        self._along: tuple[float, float] | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply."""
        self._x = inputs
        return inputs @ self._weight.t()

    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor | None:
        """Take in the outputs' gradient."""
        self._d, self._computed = gradient, None
        return gradient @ self._weight if wanted else None

    def compute(self) -> Tensor:
        """Return the weights' gradient."""
        return self._d.t() @ self._x

    def products(self) -> tuple[Tensor, Tensor]:
        """Return <g, g*> and <g, g>."""
        assert self.observed is not None
        if not self._ghost:
            return super().products()
        self._x_products, self._d_products = self._x @ self._x.t(), self._d @ self._d.t()
        self._beside = self._x @ self.observed.t()
        return (self._d * self._beside).sum(), (self._x_products * self._d_products).sum()

    def turn(self, along_observed: float, along_gradient: float) -> None:
        """Set the direction."""
        if self._ghost:
            self._direction, self._along = None, (along_observed, along_gradient)
        else:
            super().turn(along_observed, along_gradient)

    def turn_to(self, direction: Tensor | None) -> None:
        """Set the direction."""
        self._direction, self._along = direction, None

    def tangent(self, tangents: Tensor | None) -> Tensor | None:
        """Return the outputs' tangent."""
        moved = None if tangents is None else tangents @ self._weight.t()
        if self._along is not None:
            observed, gradient = self._along
            return plus(moved, self._beside * observed + self._x_products @ self._d * gradient)
        return moved if self._direction is None else plus(moved, self._x @ self._direction.t())

    def tangent_backward(self, tangent: Tensor) -> Tensor:
        """Return the tangent of the inputs' gradient."""
        moved = tangent @ self._weight
        if self._along is not None:
            assert self.observed is not None
            observed, gradient = self._along
            return moved + self._d @ self.observed * observed + self._d_products @ self._x * gradient
        return moved if self._direction is None else moved + self._d @ self._direction


class PointFilter(Matrix):
    """A convolution with a 1x1 kernel and no padding: a matrix product for every position."""

    def __init__(self, weight: Tensor, observed: Tensor | None, window: Window, *, ghost: bool) -> None:
        flat = [None if tensor is None else tensor.flatten(1) for tensor in (weight, observed)]
        assert flat[0] is not None
        super().__init__(flat[0], flat[1], ghost=ghost)
        self._window = window

    def shaped(self, gradient: Tensor) -> Tensor:
        """View it as the model's parameter."""
        return gradient[:, :, None, None]

    def turn_to(self, direction: Tensor | None) -> None:
        """Set the direction, as a parameter."""
        super().turn_to(None if direction is None else direction.flatten(1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply."""
        return self._images(super().forward(self._positions(inputs)))

    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor | None:
        """Take in the outputs' gradient."""
        found = super().backward(gradient.permute(0, 2, 3, 1).flatten(0, 2), wanted=wanted)
        return None if found is None else self._spread(found)

    def tangent(self, tangents: Tensor | None) -> Tensor | None:
        """Return the outputs' tangent."""
        found = super().tangent(None if tangents is None else self._positions(tangents))
        return None if found is None else self._images(found)

    def tangent_backward(self, tangent: Tensor) -> Tensor:
        """Return the tangent of the inputs' gradient."""
        return self._spread(super().tangent_backward(tangent.permute(0, 2, 3, 1).flatten(0, 2)))

    def _positions(self, images: Tensor) -> Tensor:
        down, across = self._window.stride
        return images.permute(0, 2, 3, 1)[:, ::down, ::across].flatten(0, 2)

    def _images(self, positions: Tensor) -> Tensor:
        return positions.view(-1, *self._window.size, self._window.outputs).permute(0, 3, 1, 2)

    def _spread(self, positions: Tensor) -> Tensor:
        """Do the transpose of `_positions`."""
        window, (down, across) = self._window, self._window.stride
        found = positions.view(window.images, *window.size, window.channels)
        if (down, across) != (1, 1):
            pixels = found.new_zeros(window.images, window.height, window.width, window.channels)
            pixels[:, ::down, ::across] = found
            found = pixels
        return found.permute(0, 3, 1, 2)
