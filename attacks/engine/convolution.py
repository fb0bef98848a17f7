"""Convolution with weights of its own for each lane, cheap to differentiate twice.

Lanes lie side by side as groups of channels, `n x (B C) x H x W` with channels last in memory, so that one
grouped convolution serves them all at close to the processor's peak, and nothing can pass from one to
another. Convolution, its gradient in the images and its gradient in the weights are the three partial
products of one trilinear form, each other's derivatives; differentiating twice costs seven forward passes,
the least that is possible exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.engine.sums import channel_sums

if TYPE_CHECKING:
    from attacks.engine.constant import Constant

Pair = tuple[int, int]


class Kernels(NamedTuple):
    """The weights of B lanes and how they slide.

    Attributes:
        weight: `(B O) x C x kernel rows x kernel columns`, the tensor to differentiate in.
        lanes: B.
        stride: Step between windows.
        padding: Zeros on each side.
        stem: Whether the layer's input is the images themselves.
        constant: A convolution with these weights that takes less time, if there is one.
    """

    weight: Tensor
    lanes: int
    stride: Pair
    padding: Pair
    stem: bool
    constant: Constant | None = None


def convolve(images: Tensor, kernels: Kernels, bias: Tensor | None) -> Tensor:
    """Convolve `n x (B C) x H x W` with each lane's weights to `n x (B O) x H' x W'`, and add `B O` biases.

    It is made for one use: to be differentiated first with `create_graph` in the weights, and what comes of
    that then without in the images. Derivatives that are not asked for on this path are not computed: neither
    the weights' the second time nor, for a stem, the images' the first.
    """
    result: Tensor = _Convolve.apply(images, kernels.weight, bias, kernels)
    return result


def plain_convolve(images: Tensor, kernels: Kernels) -> Tensor:
    """Do the same, to be differentiated once in whatever is asked for."""
    return _forward(images, kernels.weight, kernels)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, kernels: Kernels) -> Tensor:
        ctx.kernels, ctx.biased = kernels, bias is not None
        ctx.save_for_backward(images)
        return _convolved(images, kernels, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Grad mode tells which of the two differentiations this is: only the first builds a graph."""
        (images,) = ctx.saved_tensors
        kernels: Kernels = ctx.kernels
        if not torch.is_grad_enabled():
            return _spread(gradients[0], images, kernels), None, None, None
        to_weight = _WeightGradient.apply(images, gradients[0], kernels)
        to_bias = channel_sums(gradients[0]) if ctx.biased else None
        if kernels.stem:
            return None, to_weight, to_bias, None
        to_images = _ImageGradient.apply(gradients[0], images.detach(), kernels)
        return to_images, to_weight, to_bias, None


class _WeightGradient(torch.autograd.Function):
    """`(B O) x C x kernel`, in images and output gradients."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, gradient: Tensor, kernels: Kernels) -> Tensor:
        ctx.kernels = kernels
        ctx.save_for_backward(images, gradient)
        return _to_weight(gradient, images, kernels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        images, gradient = ctx.saved_tensors
        kernels: Kernels = ctx.kernels
        weight = _channels_last(gradients[0])
        return (
            _to_images(gradient, images, weight, kernels),
            _forward(images, weight, kernels),
            None,
        )


class _ImageGradient(torch.autograd.Function):
    """`n x (B C) x H x W`, in output gradients; the weights are constant here."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, images: Tensor, kernels: Kernels) -> Tensor:
        ctx.kernels = kernels
        return _spread(gradient, images, kernels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _convolved(gradients[0], ctx.kernels), None, None


def _convolved(images: Tensor, kernels: Kernels, bias: Tensor | None = None) -> Tensor:
    """Convolve with the layer's own weights."""
    if kernels.constant is not None:
        return kernels.constant.forward(images, bias)
    return _forward(images, kernels.weight, kernels, bias)


def _spread(gradient: Tensor, images: Tensor, kernels: Kernels) -> Tensor:
    """Return the gradient in images by the layer's own weights."""
    if kernels.constant is not None:
        return kernels.constant.backward(gradient)
    return _to_images(gradient, images, kernels.weight, kernels)


def _forward(images: Tensor, weight: Tensor, kernels: Kernels, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(
        _channels_last(images),
        weight,
        bias,
        stride=kernels.stride,
        padding=kernels.padding,
        groups=kernels.lanes,
    )


def _to_images(gradient: Tensor, images: Tensor, weight: Tensor, kernels: Kernels) -> Tensor:
    return _backward(gradient, images, weight, kernels, (True, False, False))[0]


def turned(weight: Tensor, lanes: int) -> Tensor:
    """Return kernels whose convolution, at stride 1, is the gradient of `weight`'s in the images."""
    rows = weight.reshape(lanes, -1, *weight.shape[1:])
    return rows.flip(3, 4).transpose(1, 2).flatten(0, 1)


def _to_weight(gradient: Tensor, images: Tensor, kernels: Kernels) -> Tensor:
    return _backward(gradient, images, kernels.weight, kernels, (False, True, False))[1]


def _backward(
    gradient: Tensor, images: Tensor, weight: Tensor, kernels: Kernels, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    computed: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        _channels_last(gradient),
        _channels_last(images),
        weight,
        None,
        kernels.stride,
        kernels.padding,
        (1, 1),
        False,
        (0, 0),
        kernels.lanes,
        wanted,
    )
    return computed


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)
