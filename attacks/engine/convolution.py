"""Convolution with weights of its own for each lane, cheap to differentiate twice.

Lanes lie side by side as groups of channels, `n x (B C) x H x W` with channels last in memory, so that one
grouped convolution serves them all at close to the processor's peak, and nothing can pass from one to
another. Convolution, its gradient in the images and its gradient in the weights are the three partial
products of one trilinear form, each other's derivatives; differentiating twice costs seven forward passes,
the least that is possible exactly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]


class Kernels(NamedTuple):
    """The weights of B lanes and how they slide.

    Attributes:
        weight: `(B O) x C x kernel rows x kernel columns`, the tensor to differentiate in.
        lanes: B.
        stride: Step between windows.
        padding: Zeros on each side.
        stem: Whether the layer's input is the images themselves.
    """

    weight: Tensor
    lanes: int
    stride: Pair
    padding: Pair
    stem: bool


def convolve(images: Tensor, kernels: Kernels) -> Tensor:
    """Convolve `n x (B C) x H x W` with each lane's weights to `n x (B O) x H' x W'`.

    It is made for one use: to be differentiated first with `create_graph` in the weights, and what comes of
    that then without in the images. Derivatives that are not asked for on this path are not computed: neither
    the weights' the second time nor, for a stem, the images' the first.
    """
    result: Tensor = _Convolve.apply(images, kernels.weight, kernels)
    return result


def plain_convolve(images: Tensor, kernels: Kernels) -> Tensor:
    """Do the same, to be differentiated once in whatever is asked for."""
    return _forward(images, kernels.weight, kernels)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, kernels: Kernels) -> Tensor:
        ctx.kernels = kernels
        ctx.save_for_backward(images)
        return _forward(images, weight, kernels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Grad mode tells which of the two differentiations this is: only the first builds a graph."""
        (images,) = ctx.saved_tensors
        kernels: Kernels = ctx.kernels
        if not torch.is_grad_enabled():
            return _to_images(gradients[0], images, kernels.weight, kernels), None, None
        to_weight = _WeightGradient.apply(images, gradients[0], kernels)
        if kernels.stem:
            return None, to_weight, None
        to_images = _ImageGradient.apply(gradients[0], images.detach(), kernels)
        return to_images, to_weight, None


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
        weight = _channels_last(gradients[0])
        return (
            _to_images(gradient, images, weight, ctx.kernels),
            _forward(images, weight, ctx.kernels),
            None,
        )


class _ImageGradient(torch.autograd.Function):
    """`n x (B C) x H x W`, in output gradients; the weights are constant here."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, images: Tensor, kernels: Kernels) -> Tensor:
        ctx.kernels = kernels
        return _to_images(gradient, images, kernels.weight, kernels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        kernels: Kernels = ctx.kernels
        return _forward(gradients[0], kernels.weight, kernels), None, None


def _forward(images: Tensor, weight: Tensor, kernels: Kernels) -> Tensor:
    return F.conv2d(
        _channels_last(images),
        weight,
        stride=kernels.stride,
        padding=kernels.padding,
        groups=kernels.lanes,
    )


def _to_images(gradient: Tensor, images: Tensor, weight: Tensor, kernels: Kernels) -> Tensor:
    return _backward(gradient, images, weight, kernels, (True, False, False))[0]


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
