"""Layers that multiply with weights, in the four passes of an exact derivative of a gradient.

For a cost D of the weights' gradient g, V = dD/dg, the image gradient of D is the derivative of dL/dx along
V. A filter computes its outputs, their gradient's way back to its inputs, and the tangents of both along V;
its weights are constants, so that they are rearranged once for all evaluations.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from attacks.engine.convolution import Pair


class Window(NamedTuple):
    """What a convolution slides over.

    Attributes:
        images: n.
        channels: C of the inputs.
        height: H.
        width: W.
        outputs: Channels of the outputs.
        kernel: Height and width of the kernel.
        stride: Step between windows.
        padding: Zeros on each side.
    """

    images: int
    channels: int
    height: int
    width: int
    outputs: int
    kernel: Pair
    stride: Pair
    padding: Pair

    @property
    def size(self) -> Pair:
        """Height and width of the outputs."""
        sides = zip((self.height, self.width), self.kernel, self.stride, self.padding, strict=True)
        rows, columns = ((side + 2 * pad - kernel) // step + 1 for side, kernel, step, pad in sides)
        return rows, columns

    @property
    def left_over(self) -> Pair:
        """Rows and columns of the padded inputs that no window reaches."""
        rows, columns = self.size
        return (
            self.height + 2 * self.padding[0] - self.kernel[0] - (rows - 1) * self.stride[0],
            self.width + 2 * self.padding[1] - self.kernel[1] - (columns - 1) * self.stride[1],
        )


class Scratch:
    """Memory for what does not outlive a call; on a CPU, fresh memory takes longer to get than to fill."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, use: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return memory with whatever it holds; what was taken for the same use is overwritten."""
        key, size = (use, like.dtype, like.device), math.prod(shape)
        if key not in self._buffers or self._buffers[key].numel() < size:
            self._buffers[key] = like.new_empty(size)
        return self._buffers[key][:size].view(*shape)


class Part(ABC):
    """A parameter of one lane.

    Attributes:
        observed: The observed gradient g* to match, in the shape that `compute` gives; or None.
    """

    def __init__(self, observed: Tensor | None) -> None:
        self.observed = observed
        self._computed: Tensor | None = None

    @property
    def gradient(self) -> Tensor:
        """The loss's gradient in it at the last backward pass, in the model's shape."""
        return self.shaped(self._gradient)

    @abstractmethod
    def compute(self) -> Tensor:
        """Compute the gradient."""

    def shaped(self, gradient: Tensor) -> Tensor:
        """View what `compute` gives in the model's shape."""
        return gradient

    def products(self) -> tuple[Tensor, Tensor]:
        """Return <g, g*> and <g, g>, scalars."""
        assert self.observed is not None
        flat = self._gradient.flatten()
        return torch.dot(flat, self.observed.flatten()), torch.dot(flat, flat)

    def turn(self, along_observed: float, along_gradient: float) -> None:
        """Set the direction to a combination of g* and g."""
        assert self.observed is not None
        combined = torch.add(self.observed * along_observed, self._gradient, alpha=along_gradient)
        self.turn_to(self.shaped(combined))

    @abstractmethod
    def turn_to(self, direction: Tensor | None) -> None:
        """Set the direction V; None is 0."""

    @property
    def _gradient(self) -> Tensor:
        if self._computed is None:
            self._computed = self.compute()
        return self._computed


class Vector(Part):
    """A parameter that counts little: its layer computes its gradient.

    Attributes:
        value: Its value.
        direction: V, or None.
    """

    def __init__(self, value: Tensor, observed: Tensor | None) -> None:
        super().__init__(observed)
        self.value = value
        self.direction: Tensor | None = None

    def set(self, gradient: Tensor) -> None:
        """Take the gradient."""
        self._computed = gradient

    def compute(self) -> Tensor:
        """Never asked for: it has been set."""
        raise AssertionError

    def turn_to(self, direction: Tensor | None) -> None:
        """Set the direction."""
        self.direction = direction


class Filter(Part):
    """Weights between inputs and outputs."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs."""

    @abstractmethod
    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor | None:
        """Take in the outputs' gradient; return the inputs' where it is wanted."""

    @abstractmethod
    def tangent(self, tangents: Tensor | None) -> Tensor | None:
        """Return the outputs' tangent for the inputs'; None is 0."""

    @abstractmethod
    def tangent_backward(self, tangent: Tensor) -> Tensor:
        """Return the tangent of the inputs' gradient for that of the outputs'."""


def last(tensor: Tensor) -> Tensor:
    """Return `n x C x H x W` with channels last in memory."""
    return tensor.contiguous(memory_format=torch.channels_last)


def plus(one: Tensor | None, other: Tensor) -> Tensor:
    """Add what may be None for 0."""
    return other if one is None else one + other
