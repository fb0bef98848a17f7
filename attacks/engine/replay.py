"""Layers with kinks that can be made to take the side they took before."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from attacks.engine.graphs import UnsupportedModelError, is_relu


class Replayed(nn.Module, ABC):
    """A layer with kinks, at one place of a network.

    Attributes:
        replaying: Whether it takes the sides of the last evaluation in which it was not.
    """

    replaying = False

    def __init__(self) -> None:
        super().__init__()
        self.taken = torch.empty(0)

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the layer to `n x C x ...`."""
        if self.replaying:
            return self.take(inputs)
        self.taken = self.choose(inputs.detach())
        return self.apply_anew(inputs)

    @abstractmethod
    def choose(self, inputs: Tensor) -> Tensor:
        """Return what tells on which side of its kinks each input is."""

    @abstractmethod
    def take(self, inputs: Tensor) -> Tensor:
        """Apply what is linear in the inputs once sides are taken."""

    def apply_anew(self, inputs: Tensor) -> Tensor:
        """Apply the layer to the inputs that sides were chosen for."""
        return self.take(inputs)


class ReplayedReLU(Replayed):
    """max(x, 0), or with a slope the leaky one.

    Args:
        slope: Of negative inputs.
    """

    def __init__(self, *, slope: float) -> None:
        super().__init__()
        self._slope = slope

    def choose(self, inputs: Tensor) -> Tensor:
        """Return the inputs themselves: their signs tell."""
        return inputs

    def take(self, inputs: Tensor) -> Tensor:
        """Multiply by the slopes, which is what the layer's derivative does to a gradient."""
        sloped: Tensor = torch.ops.aten.leaky_relu_backward(inputs, self.taken, self._slope, False)
        return sloped

    def apply_anew(self, inputs: Tensor) -> Tensor:
        """Apply the layer."""
        return F.leaky_relu(inputs, self._slope)


class ReplayedMaxPool(Replayed):
    """Max-pooling.

    Args:
        pool: The layer it stands for.
    """

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self._pool = pool

    def choose(self, inputs: Tensor) -> Tensor:
        """Return the position of each window's largest entry."""
        pool = self._pool
        _, indices = F.max_pool2d(
            inputs,
            pool.kernel_size,
            pool.stride,
            pool.padding,
            pool.dilation,
            ceil_mode=pool.ceil_mode,
            return_indices=True,
        )
        return indices

    def take(self, inputs: Tensor) -> Tensor:
        """Pick the entries at those positions."""
        return inputs.flatten(2).gather(2, self.taken.flatten(2)).view(self.taken.shape)


def replace_kinks(module: fx.GraphModule) -> list[Replayed]:
    """Put a layer of its own at every place where the graph has a kink.

    Raises:
        UnsupportedModelError: If one cannot be replayed.
    """
    kinks: list[Replayed] = []
    for node in module.graph.nodes:
        layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if is_relu(node, module):
            kinks.append(ReplayedReLU(slope=0.0))
        elif isinstance(layer, nn.LeakyReLU):
            kinks.append(ReplayedReLU(slope=layer.negative_slope))
        elif isinstance(layer, nn.MaxPool2d):
            kinks.append(ReplayedMaxPool(layer))
        elif node.target in (F.leaky_relu, F.max_pool2d):
            raise UnsupportedModelError(f"the kinks of {node.format_node()} cannot be replayed")
        else:
            continue
        name = f"kink_{len(kinks)}"
        module.add_submodule(name, kinks[-1])
        node.op, node.target, node.args, node.kwargs = "call_module", name, node.args[:1], {}
    module.recompile()
    return kinks
