"""Convolutions whose weights are rows, one set per lane.

What a cosine needs of a weight's gradient can be told without forming it where positions are few
(`attacks.engine.grams`); then its lanes are differentiated in their outputs instead of their weights.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from attacks.engine.constant import Constant, convolve_constant, turns
from attacks.engine.convolution import Kernels, convolve, plain_convolve
from attacks.engine.filters import Window
from attacks.engine.grams import is_ghost, lane_products
from attacks.engine.layers import CACHE_LINE, LaneLayer, parameter_names
from attacks.engine.products import Product, product, row_products
from attacks.engine.rowwise import weight_rows
from attacks.engine.sums import add_bias, channel_sums
from fl.types import Tensors

if TYPE_CHECKING:
    from torch.nn.modules.batchnorm import _BatchNorm


class _Ghost(NamedTuple):
    """What a layer that is not differentiated in its weights took in and made of it.

    Attributes:
        inputs: u, `n x (B C) x H x W`.
        convolved: W u, without what a batch norm makes of it.
        offsets: What is added to that, which is differentiated in.
        window: How a lane's kernels slide.
    """

    inputs: Tensor
    convolved: Tensor
    offsets: Tensor
    window: Window


class LaneConv2d(LaneLayer):
    """A convolution and, where there is one, the batch norm in eval mode behind it."""

    def __init__(
        self,
        name: str,
        conv: nn.Conv2d,
        lanes: int,
        *,
        norm: tuple[str, _BatchNorm] | None,
        stem: bool,
    ) -> None:
        of_norm = [] if norm is None else parameter_names(*norm)
        super().__init__(lanes, [*parameter_names(name, conv), *of_norm])
        assert not isinstance(conv.padding, str)
        self._name, self._norm = name, norm
        self._has_bias = conv.bias is not None
        like = conv.weight.detach()
        weight = like.new_zeros(lanes * conv.out_channels, *like.shape[1:])
        weight = weight.contiguous(memory_format=torch.channels_last).requires_grad_()
        self.leaves["weight"] = weight
        if norm is not None or self._has_bias:
            self.leaves["bias"] = like.new_zeros(lanes * conv.out_channels).requires_grad_()
        self._kernels = Kernels(
            weight,
            lanes,
            stride=(conv.stride[0], conv.stride[1]),
            padding=(conv.padding[0], conv.padding[1]),
            stem=stem,
        )
        if norm is not None:
            self._scale, self._inverse, self._shift = (
                like.new_zeros(lanes, conv.out_channels) for _ in range(3)
            )
            self._weight = self._rows(weight.detach().clone())
        self._conv = conv
        self._ghost: _Ghost | None = None
        self._offsets: Tensor | None = None
        self._constant: Constant | None = None
        self._observed: Constant | None = None

    @property
    def sources(self) -> dict[str, Tensor]:
        """Outputs, where the gradient in them tells all that is needed of the weights'."""
        return super().sources if self._ghost is None else {"outputs": self._ghost.offsets}

    def load(self, lane: int, tensors: Tensors) -> None:
        """Take a lane's weights, folded."""
        weight = tensors[f"{self._name}.weight"]
        bias = tensors[f"{self._name}.bias"] if self._has_bias else weight.new_zeros(len(weight))
        if self._norm is not None:
            name, norm = self._norm
            gamma = tensors.get(f"{name}.weight", torch.ones_like(bias))
            beta = tensors.get(f"{name}.bias", torch.zeros_like(bias))
            inverse = (tensors[f"{name}.running_var"] + norm.eps).rsqrt()
            shift = (bias - tensors[f"{name}.running_mean"]) * inverse
            self._weight[lane], self._inverse[lane], self._shift[lane] = weight, inverse, shift
            self._scale[lane] = gamma * inverse
            weight, bias = weight * (gamma * inverse).view(-1, 1, 1, 1), gamma * shift + beta
        self._fill("weight", lane, weight)
        if "bias" in self.leaves:
            self._fill("bias", lane, bias)
        self._offsets = self._constant = None

    def aim(self, lane: int, observed: Tensors) -> None:
        """Take the observed gradient."""
        super().aim(lane, observed)
        self._observed = None

    def gradients(self, leaves: Tensors) -> Tensors:
        """Unfold the batch norm."""
        weight, along = self._rows(leaves["weight"]), None
        if self._norm is not None:
            along = (weight * self._weight).sum((2, 3, 4))
            weight = weight * self._scale.view(*self._scale.shape, 1, 1, 1)
        return {f"{self._name}.weight": weight, **self._vectors(leaves, along)}

    def products(self, leaves: Tensors) -> dict[str, Product]:
        """Unfold inner products by output instead of the weights' gradient, of which there is far more."""
        aims, name = dict(self._aims), f"{self._name}.weight"
        if name not in aims:
            return super().products(leaves)
        if self._ghost is not None:
            ghost, self._ghost = self._ghost, None  # it would keep a graph alive
            return self._ghost_products(ghost, leaves["outputs"])
        fixed = [aims.pop(name)] if self._norm is None else [aims.pop(name), self._weight]
        *along, squares = (
            rows.view(self.lanes, -1)
            for rows in row_products(
                _by_output(leaves["weight"]), [_by_output(f.flatten(0, 1)) for f in fixed]
            )
        )
        dots = along.pop(0)
        if self._norm is not None:
            dots, squares = dots * self._scale, squares * self._scale.square()
        vectors = self._vectors(leaves, along[0] if along else None)
        found = {other: product(vectors[other], aim) for other, aim in aims.items()}
        return {name: Product(dots.sum(1), squares.sum(1)), **found}

    def _vectors(self, leaves: Tensors, along: Tensor | None) -> dict[str, Tensor]:
        """Return the gradients of all parameters but the weight.

        Args:
            leaves: Gradients of the leaves.
            along: <dL/dW', W> by output, `B x O`, where a batch norm is folded in.
        """
        if "bias" not in leaves:
            return {}
        bias = self._rows(leaves["bias"])
        if self._norm is None:
            return {f"{self._name}.bias": bias}
        assert along is not None
        found = {f"{self._name}.bias": bias * self._scale} if self._has_bias else {}
        name, norm = self._norm
        if norm.affine:
            found[f"{name}.weight"] = along * self._inverse + bias * self._shift
            found[f"{name}.bias"] = bias
        return found

    def by_candidate(self, inputs: Tensor, slopes: Tensor) -> Tensors:
        """Return products of windows and slopes."""
        found = {"weight": weight_rows(inputs, slopes, self._kernels)}
        return {**found, "bias": slopes.sum((1, 3, 4))} if "bias" in self.leaves else found

    def forward(self, inputs: Tensor) -> Tensor:
        """From `n x (B C) x H x W` to `n x (B O) x H' x W'`."""
        window = self._window(inputs)
        if f"{self._name}.weight" in self._aims and _is_ghost(window):
            return self._forward_ghost(inputs, window)
        self._ghost = None
        weight, bias = self.leaves["weight"], self.leaves.get("bias")
        kernels = self._kernels._replace(weight=weight)
        if self.once:
            result = plain_convolve(inputs, kernels)
            return result if bias is None else add_bias(result, bias, once=True)
        constant = self._packed(weight.detach(), window) if turns(window) else None
        return convolve(inputs, kernels._replace(constant=constant), bias)

    def _forward_ghost(self, inputs: Tensor, window: Window) -> Tensor:
        """Convolve with constant weights; what is added then is what is differentiated in."""
        weight = self.leaves["weight"].detach() if self._norm is None else self._weight.flatten(0, 1)
        convolved = convolve_constant(inputs, self._packed(weight, window), stem=self._kernels.stem)
        if self._offsets is None:
            self._offsets = torch.zeros_like(convolved)
            if "bias" in self.leaves:
                self._offsets += self.leaves["bias"].detach().view(1, -1, 1, 1)
            self._offsets.requires_grad_()
        self._ghost = _Ghost(inputs, convolved, self._offsets, window)
        if self._norm is None:
            return convolved + self._offsets
        return torch.addcmul(self._offsets, convolved, self._scale.view(1, -1, 1, 1))

    def _ghost_products(self, ghost: _Ghost, slopes: Tensor) -> dict[str, Product]:
        name = f"{self._name}.weight"
        if self._observed is None:
            self._observed = Constant(self._aims[name].flatten(0, 1), ghost.window, lanes=self.lanes)
        scaled = slopes if self._norm is None else slopes * self._scale.view(1, -1, 1, 1)
        products = lane_products(ghost.inputs, scaled, self._observed, ghost.window)
        found = {name: Product(*products)}
        if "bias" in self.leaves:
            along = None if self._norm is None else self._rows(channel_sums(slopes * ghost.convolved))
            vectors = self._vectors({"bias": channel_sums(slopes)}, along)
            found |= {
                other: product(vectors[other], aim) for other, aim in self._aims.items() if other != name
            }
        return found

    def _packed(self, weight: Tensor, window: Window) -> Constant:
        """Return a convolution with weights that stay the same until a lane is loaded."""
        if self._constant is None:
            self._constant = Constant(weight, window, lanes=self.lanes)
        return self._constant

    def _window(self, inputs: Tensor) -> Window:
        conv = self._conv
        n, _, height, width = inputs.shape
        return Window(
            images=n,
            channels=conv.in_channels,
            height=height,
            width=width,
            outputs=conv.out_channels,
            kernel=(conv.kernel_size[0], conv.kernel_size[1]),
            stride=self._kernels.stride,
            padding=self._kernels.padding,
        )


def _is_ghost(window: Window) -> bool:
    """Whether to do without weight gradients; every lane of what is multiplied begins on a cache line."""
    positions = window.images * math.prod(window.size)
    fills = all(count % CACHE_LINE == 0 for count in (window.channels, window.outputs, positions))
    return fills and turns(window) and is_ghost(window)


def _by_output(weight: Tensor) -> Tensor:
    """View `(B O) x C x kernel rows x kernel columns`, channels last, as `(B O) x K`."""
    return weight.permute(0, 2, 3, 1).flatten(1)
