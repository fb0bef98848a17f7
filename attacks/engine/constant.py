"""Convolutions whose weights stay the same for many evaluations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.engine.convolution import Pair
from attacks.engine.filters import Window, last


class Constant:
    """A convolution with constant weights and its gradient in the images.

    Where oneDNN is there, weights are brought into its order once, which at few positions takes as long as
    the convolution; the gradient is then a convolution with the kernel turned round, or a transposed one.
    """

    def __init__(self, weight: Tensor, window: Window) -> None:
        self._window = window
        self._weight = last(weight)
        self._packs = weight.device.type == "cpu" and weight.dtype is torch.float32 and _has_onednn()
        if self._packs:
            self._forward = self._pack(weight, window.padding, (window.height, window.width))
            self._backward = self._pack_backward(weight)

    def forward(self, images: Tensor) -> Tensor:
        """Convolve `n x C x H x W`."""
        window = self._window
        if self._packs:
            return self._convolve(last(images), self._forward, window.stride, window.padding)
        return F.conv2d(images, self._weight, None, window.stride, window.padding)

    def backward(self, gradient: Tensor) -> Tensor:
        """Return the images' gradient for the outputs'."""
        window = self._window
        if not self._packs:
            return F.conv_transpose2d(
                gradient, self._weight, None, window.stride, window.padding, window.left_over
            )
        if self._turned:
            return self._convolve(last(gradient), self._backward, (1, 1), self._opposite)
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

    @property
    def _opposite(self) -> Pair:
        window = self._window
        return window.kernel[0] - 1 - window.padding[0], window.kernel[1] - 1 - window.padding[1]

    @property
    def _turned(self) -> bool:
        return self._window.stride == (1, 1) and min(self._opposite) >= 0

    def _pack(self, weight: Tensor, padding: Pair, size: Pair, *, stride: Pair | None = None) -> Tensor:
        window = self._window
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            last(weight), padding, stride or window.stride, (1, 1), 1, (window.images, weight.shape[1], *size)
        )
        return packed

    def _pack_backward(self, weight: Tensor) -> Tensor:
        window = self._window
        if self._turned:
            return self._pack(weight.flip(2, 3).transpose(0, 1), self._opposite, window.size)
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

    @staticmethod
    def _convolve(images: Tensor, packed: Tensor, stride: Pair, padding: Pair) -> Tensor:
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            images, packed, None, padding, stride, (1, 1), 1, "none", [], ""
        )
        return result


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call, no-any-return]
