"""Initial weights from an explicit generator, never from the global one."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd


def uniform(module: nn.Module, generator: torch.Generator, *, bound: float) -> None:
    """Draw every parameter of `module` and its children from U(-bound, bound)."""
    for parameter in module.parameters():
        _draw_uniform(parameter, bound, generator)


def pytorch_default(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the parameters that `module` itself holds as PyTorch's constructors do.

    Convolution and linear layers: weight and bias from U(-1/sqrt(fan_in), 1/sqrt(fan_in)). Normalisation
    layers: weight 1, bias 0. Modules of other types are left alone.
    """
    if isinstance(module, _ConvNd | nn.Linear):
        bound = 1 / math.sqrt(fan_in(module.weight))
        _draw_uniform(module.weight, bound, generator)
        if module.bias is not None:
            _draw_uniform(module.bias, bound, generator)
    elif isinstance(module, _BatchNorm | nn.GroupNorm | nn.LayerNorm):
        module.reset_parameters()  # constants


def kaiming_normal(weight: Tensor, generator: torch.Generator, *, fan: Literal["in", "out"] = "in") -> None:
    """Draw from N(0, 2/fan_in) or N(0, 2/fan_out) (He et al. 2015, arXiv 1502.01852, section 2.2)."""
    number = fan_in(weight) if fan == "in" else fan_out(weight)
    normal(weight, generator, std=math.sqrt(2 / number))


def normal(weight: Tensor, generator: torch.Generator, *, std: float) -> None:
    """Draw from N(0, std^2)."""
    with torch.no_grad():
        weight.normal_(0.0, std, generator=generator)


def fan_in(weight: Tensor) -> int:
    """Return the number of inputs of one output unit of a linear or convolution weight."""
    return weight[0].numel()


def fan_out(weight: Tensor) -> int:
    """Return the number of outputs that one input unit of a convolution weight takes part in."""
    return weight[:, 0].numel()


def _draw_uniform(tensor: Tensor, bound: float, generator: torch.Generator) -> None:
    with torch.no_grad():
        tensor.uniform_(-bound, bound, generator=generator)
