"""From a model to what the native kernel computes: a chain of layers, each with an activation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from attacks.engine.graphs import UnsupportedModelError, check_convolution, traced

if TYPE_CHECKING:
    from torch.fx import Node

_NONE, _SIGMOID, _TANH, _RELU = range(4)
_MODULES: Mapping[type[nn.Module], int] = {nn.Sigmoid: _SIGMOID, nn.Tanh: _TANH, nn.ReLU: _RELU}
_FUNCTIONS: Mapping[Callable[..., Any], int] = {
    torch.sigmoid: _SIGMOID,
    torch.tanh: _TANH,
    torch.relu: _RELU,
    F.relu: _RELU,
}
_METHODS: Mapping[str, int] = {"sigmoid": _SIGMOID, "tanh": _TANH, "relu": _RELU}


@dataclass(frozen=True)
class Stage:
    """A convolution and the activation behind it; a linear layer is one whose kernel is the whole image.

    Attributes:
        name: The layer's, as in the model.
        has_bias: Whether it has one.
        shape: C x H x W of its input.
        outputs: O.
        kernel: Height and width.
        stride: The same.
        padding: The same, in zeros.
        activation: Its number in the kernel's enumeration.
    """

    name: str
    has_bias: bool
    shape: tuple[int, int, int]
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    activation: int = _NONE

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """O x H' x W'."""
        height, width = (
            (size + 2 * pad - kernel) // stride + 1
            for size, pad, kernel, stride in zip(
                self.shape[1:], self.padding, self.kernel, self.stride, strict=True
            )
        )
        return self.outputs, height, width

    @property
    def numbers(self) -> tuple[int, ...]:
        """The stage as the kernel is told of it."""
        return (*self.shape, self.outputs, *self.kernel, *self.stride, *self.padding, self.activation)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of its parameters."""
        return (f"{self.name}.weight", f"{self.name}.bias") if self.has_bias else (f"{self.name}.weight",)


def chain(model: nn.Module, shape: tuple[int, int, int]) -> tuple[Stage, ...]:
    """Return the model as a chain that ends in a linear layer.

    Args:
        model: The model, in the mode to compute in.
        shape: C x H x W of its images.

    Raises:
        UnsupportedModelError: If it is none, or has a layer that the kernel does not know.
    """
    graph = traced(model)
    first, *nodes = graph.nodes
    if nodes.pop().op != "output" or any(
        node.all_input_nodes != [before] for before, node in zip([first, *nodes], nodes, strict=False)
    ):
        raise UnsupportedModelError("it is not a chain")
    builder = _Builder(dict(model.named_modules()), shape)
    for node in nodes:
        builder.add(node)
    return builder.finished()


class _Builder:
    def __init__(self, modules: Mapping[str, nn.Module], shape: tuple[int, int, int]) -> None:
        self._modules = modules
        self._stages: list[Stage] = []
        self._shape = shape
        self._flat = False

    def add(self, node: Node) -> None:
        """Add what a node does."""
        module = self._modules[str(node.target)] if node.op == "call_module" else None
        activation = _activation(node, module)
        if isinstance(module, nn.Conv2d) and not self._flat:
            self._append(_convolution(str(node.target), module, self._shape))
        elif isinstance(module, nn.Linear) and self._flat:
            self._append(_linear(str(node.target), module, self._shape))
        elif activation is not None and self._stages and self._stages[-1].activation == _NONE:
            self._stages[-1] = replace(self._stages[-1], activation=activation)
        elif _flattens(node, module):
            self._flat = True
        elif not (isinstance(module, nn.Identity) or (type(module) is nn.Dropout and not module.training)):
            operation = node.target if module is None else type(module).__name__
            raise UnsupportedModelError(f"the native kernel does not know {operation} here ({node.name})")

    def finished(self) -> tuple[Stage, ...]:
        """Return the stages."""
        last = self._stages[-1] if self._stages else None
        if last is None or last.output_shape[1:] != (1, 1) or not self._flat or last.activation != _NONE:
            raise UnsupportedModelError("it does not end in a linear layer")
        return tuple(self._stages)

    def _append(self, stage: Stage) -> None:
        if any(stage.name == other.name for other in self._stages):
            raise UnsupportedModelError(f"{stage.name!r} is used twice")
        self._stages.append(stage)
        self._shape = stage.output_shape


def _convolution(name: str, conv: nn.Conv2d, shape: tuple[int, int, int]) -> Stage:
    check_convolution(name, conv)
    assert not isinstance(conv.padding, str)
    pairs = (conv.kernel_size, conv.stride, conv.padding)
    kernel, stride, padding = ((pair[0], pair[1]) for pair in pairs)
    return Stage(name, conv.bias is not None, shape, conv.out_channels, kernel, stride, padding)


def _linear(name: str, linear: nn.Linear, shape: tuple[int, int, int]) -> Stage:
    if linear.in_features != math.prod(shape):
        raise UnsupportedModelError(f"{name!r} does not take the flattened image")
    sides = shape[1], shape[2]
    return Stage(name, linear.bias is not None, shape, linear.out_features, sides, sides, (0, 0))


def _activation(node: Node, module: nn.Module | None) -> int | None:
    if module is not None:
        return _MODULES.get(type(module))
    if node.op == "call_function":
        return _FUNCTIONS.get(node.target)  # type: ignore[arg-type]
    return _METHODS.get(str(node.target))


def _flattens(node: Node, module: nn.Module | None) -> bool:
    """Whether a node makes `n x C x H x W` into `n x (C H W)`."""
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    if node.target not in ("flatten", torch.flatten):
        return False
    given: Sequence[Any] = [*node.args[1:], *node.kwargs.values()]
    return given in ([1], [1, -1])
