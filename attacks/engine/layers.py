"""Layers whose parameters are rows, one set per lane, with batch norm in eval mode folded into them exactly.

Lanes lie side by side: activations are `n x (B C) x H x W`, or `n x (B features)`. A layer holds what it
multiplies with as leaf tensors; their gradients are turned into those of the model's own parameters, which
are linear in them: for y = a (W u + b - m) / s + c with folded weights W' = (a / s) W and folded bias,
dL/dW = (a / s) dL/dW', dL/da = (<dL/dW', W> + (b - m) dL/db') / s and dL/dc = dL/db'.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.engine.products import Product, product
from attacks.engine.sums import add_bias, channel_sums
from fl.batch_norm import Moments
from fl.types import Tensors

if TYPE_CHECKING:
    from torch.nn.modules.batchnorm import _BatchNorm

CACHE_LINE = 16
"""Single-precision numbers in 64 bytes."""


class LaneLayer(nn.Module, ABC):
    """A layer with parameters of its own for each of B lanes.

    Attributes:
        lanes: B.
        names: Its parameters, by the model's names.
        leaves: The tensors to differentiate in, by a name of the layer's own.
        once: Whether they are differentiated in once, in one go with the images, and without a graph.
        watched: Whether it keeps what it can tell of its inputs.
    """

    once = False
    watched = False

    def __init__(self, lanes: int, names: Sequence[str]) -> None:
        super().__init__()
        self.lanes = lanes
        self.names = tuple(names)
        self.leaves: dict[str, Tensor] = {}
        self._aims: dict[str, Tensor] = {}

    @property
    def sources(self) -> dict[str, Tensor]:
        """What to differentiate in for `products`, after a forward pass."""
        return self.leaves

    @abstractmethod
    def load(self, lane: int, tensors: Tensors) -> None:
        """Take a lane's parameters and buffers from a model's state, by the model's names."""

    @abstractmethod
    def gradients(self, leaves: Tensors) -> Tensors:
        """Turn gradients of `leaves` into those of the parameters, by the model's names, each with B rows."""

    def aim(self, lane: int, observed: Tensors) -> None:
        """Take what a lane's `products` are with, an observed gradient by the model's names."""
        for name in self.names:
            if name in observed:
                if name not in self._aims:
                    self._aims[name] = rows_like(observed[name], self.lanes)
                self._aims[name][lane] = observed[name]

    def products(self, leaves: Tensors) -> dict[str, Product]:
        """Return inner products of what `gradients` returns, for the parameters that are aimed at.

        Args:
            leaves: Gradients of `sources`.
        """
        found = self.gradients(leaves)
        return {name: product(found[name], aim) for name, aim in self._aims.items()}

    @abstractmethod
    def by_candidate(self, inputs: Tensor, slopes: Tensor) -> Tensors:
        """Return gradients of `leaves` at each of m candidates that share a lane's parameters, `m` rows each.

        Args:
            inputs: What the layer took in, `m x n x ...`.
            slopes: Of its outputs, likewise.
        """

    def _rows(self, tensor: Tensor) -> Tensor:
        """View `(B C) x ...` as `B x C x ...`."""
        return tensor.view(self.lanes, -1, *tensor.shape[1:])

    def _fill(self, name: str, lane: int, row: Tensor) -> None:
        with torch.no_grad():
            self._rows(self.leaves[name])[lane] = row


class LaneLinear(LaneLayer):
    """A linear layer.

    Both sides of the weights are padded with zeros, so that every lane begins on a cache line: the product of
    a vector and a matrix depends, in its last bits, on where they lie in memory.
    """

    def __init__(self, name: str, linear: nn.Linear, lanes: int) -> None:
        super().__init__(lanes, parameter_names(name, linear))
        self._name = name
        self._outputs, self._features = linear.weight.shape
        padded = [side + -side % CACHE_LINE for side in linear.weight.shape]
        self.leaves["weight"] = linear.weight.detach().new_zeros(lanes, *padded).requires_grad_()
        if linear.bias is not None:
            self.leaves["bias"] = linear.bias.detach().new_zeros(lanes * self._outputs).requires_grad_()

    def load(self, lane: int, tensors: Tensors) -> None:
        """Take a lane's weight and bias."""
        with torch.no_grad():
            self.leaves["weight"][lane, : self._outputs, : self._features] = tensors[f"{self._name}.weight"]
        if "bias" in self.leaves:
            self._fill("bias", lane, tensors[f"{self._name}.bias"])

    def gradients(self, leaves: Tensors) -> Tensors:
        """Take the padding off."""
        found = {f"{self._name}.weight": leaves["weight"][:, : self._outputs, : self._features]}
        if "bias" in leaves:
            found[f"{self._name}.bias"] = self._rows(leaves["bias"])
        return found

    def by_candidate(self, inputs: Tensor, slopes: Tensor) -> Tensors:
        """Return outer products."""
        found = {"weight": torch.bmm(slopes.transpose(1, 2), inputs).unsqueeze(1)}
        return {**found, "bias": slopes.sum(1)} if "bias" in self.leaves else found

    def forward(self, inputs: Tensor) -> Tensor:
        """From `n x (B features)` to `n x (B outputs)`."""
        weight = self.leaves["weight"]
        rows = inputs.view(len(inputs), self.lanes, -1)
        missing = weight.shape[2] - self._features
        if missing:
            rows = F.pad(rows, (0, missing))
        product = torch.bmm(rows.transpose(0, 1).contiguous(), weight.transpose(1, 2))
        outputs = product[:, :, : self._outputs].transpose(0, 1).reshape(len(inputs), -1)
        return add_bias(outputs, self.leaves["bias"], once=self.once) if "bias" in self.leaves else outputs


class LaneBatchNorm(LaneLayer):
    """A batch norm that is not folded; a lane's channels are its own, and so are statistics over images.

    Attributes:
        name: The model's name for it.
        moments: Of the last inputs, `B x C`, with a graph, where watched.
    """

    def __init__(self, name: str, norm: _BatchNorm, lanes: int) -> None:
        super().__init__(lanes, parameter_names(name, norm))
        self.name, self._norm = name, norm
        self.moments: Moments | None = None
        like = norm.weight if norm.affine else norm.running_mean
        assert like is not None
        if norm.affine:
            for leaf in ("weight", "bias"):
                self.leaves[leaf] = like.detach().new_zeros(lanes * norm.num_features).requires_grad_()
        self._mean, self._inverse = (like.detach().new_zeros(lanes * norm.num_features) for _ in range(2))

    def load(self, lane: int, tensors: Tensors) -> None:
        """Take a lane's parameters and, in eval mode, its running statistics."""
        for name in self.leaves:
            self._fill(name, lane, tensors[f"{self.name}.{name}"])
        if not self._norm.training:
            self._rows(self._mean)[lane] = tensors[f"{self.name}.running_mean"]
            inverse = (tensors[f"{self.name}.running_var"] + self._norm.eps).rsqrt()
            self._rows(self._inverse)[lane] = inverse

    def gradients(self, leaves: Tensors) -> Tensors:
        """The leaves are the parameters."""
        return {f"{self.name}.{name}": self._rows(gradient) for name, gradient in leaves.items()}

    def by_candidate(self, inputs: Tensor, slopes: Tensor) -> Tensors:
        """Return sums over images and positions; only in eval mode do candidates not meet."""
        assert not self._norm.training
        over = [axis for axis in range(inputs.ndim) if axis not in (0, 2)]
        shape = (-1, *[1] * (inputs.ndim - 3))
        normalised = (inputs - self._mean.view(shape)) * self._inverse.view(shape)
        return {"weight": (slopes * normalised).sum(over), "bias": slopes.sum(over)}

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise `n x (B C) x ...`."""
        shape = (-1, *[1] * (inputs.ndim - 2))
        if self._norm.training:
            over = [axis for axis in range(inputs.ndim) if axis != 1]
            variance, mean = torch.var_mean(inputs, over, correction=0, keepdim=True)
            normalised = (inputs - mean) * (variance + self._norm.eps).rsqrt()
            if self.watched:
                self._keep(mean, variance)
        else:
            normalised = (inputs - self._mean.view(shape)) * self._inverse.view(shape)
            if self.watched:
                count = inputs.numel() // inputs.shape[1]
                mean = channel_sums(inputs) / count
                self._keep(mean, channel_sums((inputs - mean.view(shape)).square()) / count)
        if self.leaves:
            weight, bias = (self.leaves[name].view(shape) for name in ("weight", "bias"))
            normalised = normalised * weight + bias
        return normalised

    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        self.moments = Moments(mean.view(self.lanes, -1), variance.view(self.lanes, -1))


def rows_like(tensor: Tensor, lanes: int) -> Tensor:
    """Return B rows of zeros, those of a convolution with channels last, as its gradients are."""
    if tensor.ndim != 4:
        return tensor.new_zeros(lanes, *tensor.shape)
    outputs, channels, height, width = tensor.shape
    return tensor.new_zeros(lanes, outputs, height, width, channels).permute(0, 1, 4, 2, 3)


def parameter_names(name: str, module: nn.Module) -> list[str]:
    """Return a layer's parameters by the model's names."""
    return [f"{name}.{leaf}" for leaf, _ in module.named_parameters(recurse=False)]
