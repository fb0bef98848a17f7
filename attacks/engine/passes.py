"""The steps of a model and what each does in the four passes of an exact derivative of a gradient.

Forward, and backward for the gradient; then the tangent of both along a direction V of the parameters. The
images stand still, so that a step before the first parameter has no tangent forward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Tangent = Tensor | None
"""None is 0."""


class Step(ABC):
    """An operation of the model."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """Compute, and keep what the other passes need."""

    @abstractmethod
    def backward(self, gradient: Tensor, *, wanted: bool) -> Sequence[Tensor | None]:
        """Return the inputs' gradients, where they are wanted."""

    @abstractmethod
    def tangent(self, *tangents: Tangent) -> Tangent:
        """Return the outputs' tangent."""

    @abstractmethod
    def tangent_backward(self, tangent: Tensor) -> Sequence[Tensor]:
        """Return the tangents of the inputs' gradients."""


class Linear(Step):
    """An operation that is linear in its inputs and has no parameters."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        """Compute, with a graph."""
        self._inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        with torch.enable_grad():
            self._output = self._function(*self._inputs)
        return self._output.detach()

    def backward(self, gradient: Tensor, *, wanted: bool) -> Sequence[Tensor | None]:
        """Go back through the graph."""
        return self.tangent_backward(gradient)

    def tangent(self, *tangents: Tangent) -> Tangent:
        """Compute again."""
        pairs = zip(self._inputs, tangents, strict=True)
        if all(tangent is None for tangent in tangents):
            return None
        return self._function(
            *(torch.zeros_like(x).detach() if tangent is None else tangent for x, tangent in pairs)
        )

    def tangent_backward(self, tangent: Tensor) -> Sequence[Tensor]:
        """Go back through the graph."""
        return torch.autograd.grad(self._output, self._inputs, tangent, retain_graph=True)


class Sum(Step):
    """Addition."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Add."""
        self._number = len(inputs)
        return _total(inputs)

    def backward(self, gradient: Tensor, *, wanted: bool) -> Sequence[Tensor | None]:
        """Pass it to all."""
        return [gradient] * self._number

    def tangent(self, *tangents: Tangent) -> Tangent:
        """Add."""
        there = [tangent for tangent in tangents if tangent is not None]
        return _total(there) if there else None

    def tangent_backward(self, tangent: Tensor) -> Sequence[Tensor]:
        """Pass it to all."""
        return [tangent] * self._number


class Rectifier(Step):
    """max(x, 0), or with a slope of negative inputs the leaky one."""

    def __init__(self, slope: float) -> None:
        self._slope = slope

    def forward(self, *inputs: Tensor) -> Tensor:
        """Apply it; signs are those of the inputs."""
        self._taken = inputs[0].relu() if self._slope == 0 else inputs[0]
        return self._taken if self._slope == 0 else nn.functional.leaky_relu(inputs[0], self._slope)

    def backward(self, gradient: Tensor, *, wanted: bool) -> Sequence[Tensor | None]:
        """Multiply by the slopes."""
        return [self._sloped(gradient)]

    def tangent(self, *tangents: Tangent) -> Tangent:
        """Multiply by the slopes."""
        return None if tangents[0] is None else self._sloped(tangents[0])

    def tangent_backward(self, tangent: Tensor) -> Sequence[Tensor]:
        """Multiply by the slopes."""
        return [self._sloped(tangent)]

    def _sloped(self, tensor: Tensor) -> Tensor:
        if self._slope == 0:
            return torch.ops.aten.threshold_backward(tensor, self._taken, 0.0)  # type: ignore[no-any-return]
        return torch.ops.aten.leaky_relu_backward(  # type: ignore[no-any-return]
            tensor, self._taken, self._slope, False
        )


class MaxPool(Step):
    """Max-pooling."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        self._settings = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Take the largest entries, and keep where they were."""
        self._images = inputs[0]
        largest, self._places = torch.ops.aten.max_pool2d_with_indices(inputs[0], *map(_pair, self._settings))
        return largest  # type: ignore[no-any-return]

    def backward(self, gradient: Tensor, *, wanted: bool) -> Sequence[Tensor | None]:
        """Put gradients where the entries were."""
        return self.tangent_backward(gradient)

    def tangent(self, *tangents: Tangent) -> Tangent:
        """Pick the entries at the same places."""
        if tangents[0] is None:
            return None
        return tangents[0].flatten(2).gather(2, self._places.flatten(2)).view(self._places.shape)

    def tangent_backward(self, tangent: Tensor) -> Sequence[Tensor]:
        """Put tangents where the entries were."""
        settings = map(_pair, self._settings)
        return [
            torch.ops.aten.max_pool2d_with_indices_backward(tangent, self._images, *settings, self._places)
        ]


def _pair(setting: object) -> object:
    return setting if isinstance(setting, bool | tuple) else (setting, setting)


def _total(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
