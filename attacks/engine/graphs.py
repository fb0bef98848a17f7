"""Models as graphs of operations, and what nothing over lanes can compute."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.nn import functional as F


class UnsupportedModelError(Exception):
    """A model or an objective that a formulation cannot compute; the message says what is in the way."""


def traced(model: nn.Module) -> fx.Graph:
    """Return the model's operations.

    Raises:
        UnsupportedModelError: If its forward cannot be traced.
    """
    try:
        return fx.Tracer().trace(model)
    except Exception as error:  # tracing runs the model's code on proxies, which may fail in any way
        raise UnsupportedModelError(f"its forward cannot be traced: {error}") from error


def check_convolution(name: str, conv: nn.Conv2d) -> None:
    """Raise an error about a convolution that is more than a kernel, a stride and zeros around the images.

    Raises:
        UnsupportedModelError: If it is.
    """
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    if not plain or isinstance(conv.padding, str):
        raise UnsupportedModelError(f"{name!r} is grouped, dilated or padded by other than zeros")


def is_relu(node: fx.Node, module: fx.GraphModule) -> bool:
    """Whether an operation is max(x, 0)."""
    if node.op == "call_module":
        return isinstance(module.get_submodule(str(node.target)), nn.ReLU)
    return node.target in (F.relu, torch.relu, "relu")
