"""The steps of a model that have parameters (`attacks.engine.passes`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attacks.engine.direct import DirectFilter, GhostFilter
from attacks.engine.filters import Filter, Part, Scratch, Vector, Window
from attacks.engine.grams import is_ghost
from attacks.engine.matrices import Matrix, PointFilter
from attacks.engine.passes import Step, Tangent
from attacks.engine.winograd import KERNEL, WinogradFilter
from fl.batch_norm import Moments
from fl.types import Tensors

if TYPE_CHECKING:
    from torch.nn.modules.batchnorm import _BatchNorm

NARROW = 32
"""Channels from which on Winograd's transforms are worth what they save."""
LOW = 12
"""Height and width from which on."""


class Layer(Step):
    """A step with parameters.

    Attributes:
        parts: The parameters by the model's names.
    """

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}

    @abstractmethod
    def load(self, tensors: Tensors, observed: Tensors) -> None:
        """Take parameters and buffers of a model's state, and observed gradients to match."""


class Norm(Layer):
    """Batch norm in eval mode: scale x + shift for each channel.

    Attributes:
        name: The model's name for it.
    """

    def __init__(self, name: str, norm: _BatchNorm) -> None:
        super().__init__()
        self.name, self._epsilon = name, norm.eps
        self._drawn: tuple[Tensor, Tensor] | None = None

    def load(self, tensors: Tensors, observed: Tensors) -> None:
        """Take parameters and statistics."""
        names = [f"{self.name}.{leaf}" for leaf in ("weight", "bias")]
        self._mean = tensors[f"{self.name}.running_mean"]
        self._inverse = (tensors[f"{self.name}.running_var"] + self._epsilon).rsqrt()
        self._scale, shift = self._inverse, -self._mean * self._inverse
        self.parts = {}
        if names[0] in tensors:
            self._gamma, self._beta = (Vector(tensors[name], observed.get(name)) for name in names)
            self.parts = dict(zip(names, (self._gamma, self._beta), strict=True))
            self._scale, shift = self._scale * self._gamma.value, shift * self._gamma.value + self._beta.value
        self._shift = shift

    def forward(self, *inputs: Tensor) -> Tensor:
        """Scale and shift."""
        self._x = inputs[0]
        return torch.addcmul(_beside(self._shift, self._x), self._x, _beside(self._scale, self._x))

    def backward(self, gradient: Tensor, *, wanted: bool) -> Sequence[Tensor | None]:
        """Scale."""
        self._d = gradient
        if self.parts:
            axes = [axis for axis in range(gradient.ndim) if axis != 1]
            sums = gradient.sum(axes)
            self._beta.set(sums)
            self._gamma.set(((gradient * self._x).sum(axes) - self._mean * sums) * self._inverse)
        return [gradient * _beside(self._scale, gradient)] if wanted else [None]

    def tangent(self, *tangents: Tangent) -> Tangent:
        """Scale, and add what turning the parameters does."""
        moved = None if tangents[0] is None else tangents[0] * _beside(self._scale, self._x)
        scale = self._gamma.direction if self.parts else None
        shift = self._beta.direction if self.parts else None
        if scale is not None:
            scale = scale * self._inverse
            offset = -self._mean * scale
            shift = offset if shift is None else shift + offset
            moved = (
                _beside(scale, self._x) * self._x
                if moved is None
                else moved.addcmul_(_beside(scale, self._x), self._x)
            )
        if shift is None:
            return moved
        shift = _beside(shift, self._x)
        return shift.expand_as(self._x) if moved is None else moved.add_(shift)

    def tangent_backward(self, tangent: Tensor) -> Sequence[Tensor]:
        """Scale, and add what turning the parameters does."""
        moved = tangent * _beside(self._scale, tangent)
        scale = self._gamma.direction if self.parts else None
        if scale is not None:
            moved.addcmul_(_beside(scale * self._inverse, tangent), self._d)
        if self._drawn is not None:
            slope, offset = (_beside(values, tangent) for values in self._drawn)
            moved.addcmul_(slope, self._x).add_(offset)
        return [moved]

    def moments(self) -> Moments:
        """Return mean and variance of the inputs, by channel."""
        axes = [axis for axis in range(self._x.ndim) if axis != 1]
        variance, self._input_mean = torch.var_mean(self._x, axes, correction=0)
        return Moments(self._input_mean, variance)

    def draw(self, to_mean: Tensor, to_variance: Tensor) -> None:
        """Take the derivatives in the moments; what they are in the inputs joins the tangent."""
        count = self._x.numel() // self._x.shape[1]
        slope = 2 * to_variance / count
        self._drawn = slope, to_mean / count - slope * self._input_mean


class Weighted(Layer):
    """A convolution or a linear layer."""

    def __init__(self, name: str, module: nn.Conv2d | nn.Linear, scratch: Scratch) -> None:
        super().__init__()
        self._name, self._module, self._scratch = name, module, scratch

    def load(self, tensors: Tensors, observed: Tensors) -> None:
        """Take weights; how they are multiplied with is decided when the size of the images is known."""
        weight, bias = (f"{self._name}.{leaf}" for leaf in ("weight", "bias"))
        self._weight, self._observed = tensors[weight], observed.get(weight)
        self.parts = {}
        self._filter: Filter | None = None
        self._bias = Vector(tensors[bias], observed.get(bias)) if bias in tensors else None
        if self._bias is not None:
            self.parts[bias] = self._bias

    def forward(self, *inputs: Tensor) -> Tensor:
        """Multiply and add the bias."""
        if self._filter is None:
            self._filter = _filter(
                self._module, self._weight, self._observed, inputs[0], scratch=self._scratch
            )
            self.parts = {f"{self._name}.weight": self._filter, **self.parts}
        outputs = self._filter.forward(inputs[0])
        self._size = outputs.shape
        return outputs if self._bias is None else outputs + _beside(self._bias.value, outputs)

    def backward(self, gradient: Tensor, *, wanted: bool) -> Sequence[Tensor | None]:
        """Multiply with the transposed."""
        assert self._filter is not None
        if self._bias is not None:
            self._bias.set(gradient.sum([axis for axis in range(gradient.ndim) if axis != 1]))
        return [self._filter.backward(gradient, wanted=wanted)]

    def tangent(self, *tangents: Tangent) -> Tangent:
        """Multiply the tangent with the weights and the inputs with the direction."""
        assert self._filter is not None
        moved = self._filter.tangent(tangents[0])
        if self._bias is None or self._bias.direction is None:
            return moved
        turned = self._bias.direction.view(-1, *[1] * (len(self._size) - 2)).expand(self._size)
        return turned if moved is None else moved + turned

    def tangent_backward(self, tangent: Tensor) -> Sequence[Tensor]:
        """Multiply with the transposed of both."""
        assert self._filter is not None
        return [self._filter.tangent_backward(tangent)]


def _filter(
    module: nn.Conv2d | nn.Linear,
    weight: Tensor,
    observed: Tensor | None,
    inputs: Tensor,
    *,
    scratch: Scratch,
) -> Filter:
    """Choose the way with the least work; it depends on shapes alone."""
    if isinstance(module, nn.Linear):
        return Matrix(weight, observed, ghost=observed is not None)
    assert not isinstance(module.padding, str)
    n, channels, height, width = inputs.shape
    window = Window(
        images=n,
        channels=channels,
        height=height,
        width=width,
        outputs=len(weight),
        kernel=(weight.shape[2], weight.shape[3]),
        stride=(module.stride[0], module.stride[1]),
        padding=(module.padding[0], module.padding[1]),
    )
    same = window.kernel == (KERNEL, KERNEL) and window.stride == (1, 1) == window.padding
    if same and min(height, width) >= LOW and min(channels, len(weight)) >= NARROW:
        return WinogradFilter(weight, observed, window, scratch)
    ghost = observed is not None and is_ghost(window)
    if window.kernel == (1, 1) and window.padding == (0, 0):
        return PointFilter(weight, observed, window, ghost=ghost)
    if ghost and observed is not None:
        return GhostFilter(weight, observed, window)
    return DirectFilter(weight, observed, window)


def _beside(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 2))
