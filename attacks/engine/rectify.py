"""max(x, 0), to be differentiated twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from attacks.engine.graphs import is_relu


def rectify(inputs: Tensor) -> Tensor:
    """Return max(x, 0); torch's own adds tensors of zeros when it is differentiated twice."""
    result: Tensor = _Rectify.apply(inputs)
    return result


def rectify_all(module: fx.GraphModule) -> None:
    """Have every ReLU computed by one whose second derivative costs nothing."""
    for node in module.graph.nodes:
        if is_relu(node, module):
            node.op, node.target, node.args, node.kwargs = "call_function", rectify, node.args[:1], {}
    module.recompile()


class _Rectify(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        outputs = inputs.clamp_min(0)
        ctx.save_for_backward(outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (outputs,) = ctx.saved_tensors
        result: Tensor = _Mask.apply(gradients[0], outputs.detach())
        return result


class _Mask(torch.autograd.Function):
    """Zero where the outputs are."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, outputs: Tensor) -> Tensor:
        ctx.save_for_backward(outputs)
        masked: Tensor = torch.ops.aten.threshold_backward(gradient, outputs, 0)
        return masked

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (outputs,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0], outputs, 0), None
