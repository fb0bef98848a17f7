"""The gradient of gradient matching from one more gradient, at weights moved a little.

For a cost D of the weights' gradient g(x) and v = dD/dg, dD/dx = d/de of dL/dx at weights W + e v, e = 0,
since derivatives commute. So one evaluation at W and one at W + e v give dD/dx by a difference, for the work
of five forward passes instead of the seven of exact differentiation. A network of ReLUs is only piecewise
smooth, and plain differences across its kinks are useless in single precision; here the second evaluation
replays which units were active and which entry each max-pool took, which makes it smooth in e.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attacks.engine.losses import lane_losses
from attacks.engine.program import Program
from fl.specs import Task
from fl.types import Tensors

RELATIVE_STEP = 3e-5
"""|e v| / |W|: small enough for a derivative, large enough for single precision."""


class Difference:
    """Lanes' gradients, differentiable in inputs and labels by a difference.

    Raises:
        UnsupportedModelError: If the model has an operation that is not known to treat images alone, or whose
            kinks are not replayed.
    """

    def __init__(self, model: nn.Module, lanes: int) -> None:
        self._program = Program(model, lanes, replayed=True)

    def load(self, lane: int, tensors: Tensors) -> None:
        """Give a lane its weights."""
        self._program.load(lane, tensors)

    def gradients(self, inputs: Tensor, labels: Tensor, task: Task, names: Sequence[str]) -> Tensors:
        """Return lanes' gradients."""
        context = (self._program, task, names)
        computed: tuple[Tensor, ...] = _Gradients.apply(inputs, labels, context)
        return dict(zip(names, computed, strict=True))


class _Gradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, labels: Tensor, context: tuple[Program, Task, Sequence[str]]
    ) -> tuple[Tensor, ...]:
        program, task, names = context
        program.replay(False)
        leaves = program.leaves
        to_inputs, to_labels, *to_leaves = _evaluate(program, inputs, labels, task, leaves)
        with torch.enable_grad():
            ctx.to_leaves = [gradient.requires_grad_() for gradient in to_leaves]
            found = program.named(ctx.to_leaves)
        ctx.found = [found[name] for name in names]
        ctx.program, ctx.task = program, task
        ctx.save_for_backward(inputs, labels, to_inputs, to_labels)
        return tuple(gradient.detach() for gradient in ctx.found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, labels, to_inputs, to_labels = ctx.saved_tensors
        program: Program = ctx.program
        directions = torch.autograd.grad(ctx.found, ctx.to_leaves, gradients, materialize_grads=True)
        step = _step(program, directions)
        program.replay(True)
        with program.moved(directions, step):
            there = _evaluate(program, inputs, labels, ctx.task, [])
        here = (to_inputs, to_labels)
        changes = [(b - a) / _over(step, a) for a, b in zip(here, there, strict=True)]
        return changes[0], changes[1], None


def _evaluate(
    program: Program, inputs: Tensor, labels: Tensor, task: Task, leaves: Sequence[Tensor]
) -> list[Tensor]:
    """Return the loss's gradients in inputs, labels and `leaves`."""
    with torch.enable_grad():
        variables = [inputs.detach().requires_grad_(), labels.detach().requires_grad_()]
        loss = lane_losses(task, program(variables[0]), variables[1]).sum()
        return list(torch.autograd.grad(loss, [*variables, *leaves], materialize_grads=True))


def _step(program: Program, directions: Sequence[Tensor]) -> Tensor:
    """Return e of each lane, `B`; 1 where v = 0."""
    lengths = [_norms(program, [leaf.detach() for leaf in program.leaves]), _norms(program, directions)]
    step = RELATIVE_STEP * lengths[0] / lengths[1]
    return torch.where(step.isfinite(), step, 1)


def _norms(program: Program, tensors: Sequence[Tensor]) -> Tensor:
    squares = torch.zeros(program.lanes, dtype=tensors[0].dtype, device=tensors[0].device)
    for rows in map(program.rows, tensors):
        squares = squares + rows.square().sum(tuple(range(1, rows.ndim)))
    return squares.sqrt()


def _over(step: Tensor, rows: Tensor) -> Tensor:
    return step.view(-1, *[1] * (rows.ndim - 1))
