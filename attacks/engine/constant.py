"""Convolutions whose weights stay the same for many evaluations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.engine.convolution import Pair, turned
from attacks.engine.filters import Window, last


class Constant:
    """A convolution with constant weights, each lane's with its own, and its gradient in the images.

    Where oneDNN is there, weights are brought into its order once, which at few positions takes as long as
    the convolution; the gradient is then a convolution with the kernel turned round, or a transposed one.

    Args:
        weight: `(B O) x C x kernel rows x kernel columns`.
        window: How a lane's slide.
        lanes: B; more than one only where the kernel can be turned round (`turns`).

    Attributes:
        lanes: B.
    """

    def __init__(self, weight: Tensor, window: Window, *, lanes: int = 1) -> None:
        self._window, self.lanes = window, lanes
        self._weight = last(weight)
        self._packs = weight.device.type == "cpu" and weight.dtype is torch.float32 and _has_onednn()
        if self._packs:
            self._forward = self._pack(weight, window.padding, (window.height, window.width))
            self._backward = self._pack_backward(weight)

    def forward(self, images: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve `n x C x H x W` and add a bias."""
        window = self._window
        if self._packs:
            return self._convolve(last(images), self._forward, window.stride, window.padding, bias)
        return F.conv2d(images, self._weight, bias, window.stride, window.padding, groups=self.lanes)

    def backward(self, gradient: Tensor) -> Tensor:
        """Return the images' gradient for the outputs'."""
        window = self._window
        if not self._packs:
            return F.conv_transpose2d(
                gradient, self._weight, None, window.stride, window.padding, window.left_over, self.lanes
            )
        if turns(window):
            return self._convolve(last(gradient), self._backward, (1, 1), _opposite(window))
        transposed: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
            last(gradient),
            self._backward,
            None,
            window.padding,
            window.left_over,
            window.stride,
            (1, 1),
            1,
            "none",
            [],
            "",
        )
        return transposed

    def _pack(self, weight: Tensor, padding: Pair, size: Pair, *, stride: Pair | None = None) -> Tensor:
        window = self._window
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            last(weight),
            padding,
            stride or window.stride,
            (1, 1),
            self.lanes,
            (window.images, self.lanes * weight.shape[1], *size),
        )
        return packed

    def _pack_backward(self, weight: Tensor) -> Tensor:
        window = self._window
        if turns(window):
            return self._pack(turned(weight, self.lanes), _opposite(window), window.size)
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            last(weight),
            window.padding,
            window.left_over,
            window.stride,
            (1, 1),
            1,
            (window.images, window.outputs, *window.size),
        )
        return packed

    def _convolve(
        self, images: Tensor, packed: Tensor, stride: Pair, padding: Pair, bias: Tensor | None = None
    ) -> Tensor:
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            images, packed, bias, padding, stride, (1, 1), self.lanes, "none", [], ""
        )
        return result


def turns(window: Window) -> bool:
    """Whether the gradient in the images is a convolution with the kernel turned round."""
    return window.stride == (1, 1) and min(_opposite(window)) >= 0


def convolve_constant(images: Tensor, constant: Constant, *, stem: bool) -> Tensor:
    """Convolve, as differentiable as `attacks.engine.convolution.convolve`, but in images alone."""
    result: Tensor = _Convolve.apply(images, constant, stem)
    return result


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, constant: Constant, stem: bool) -> Tensor:
        ctx.constant, ctx.stem = constant, stem
        return constant.forward(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        """Grad mode tells which of two differentiations this is: only the first builds a graph."""
        if not torch.is_grad_enabled():
            return ctx.constant.backward(gradients[0]), None, None
        return None if ctx.stem else _ImageGradient.apply(gradients[0], ctx.constant), None, None


class _ImageGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, constant: Constant) -> Tensor:
        ctx.constant = constant
        return constant.backward(gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.constant.forward(gradients[0]), None


def _opposite(window: Window) -> Pair:
    return window.kernel[0] - 1 - window.padding[0], window.kernel[1] - 1 - window.padding[1]


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call, no-any-return]
