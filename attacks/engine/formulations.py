"""Ways to compute the gradients of all lanes at once; the plain loop of `attacks.matching` is the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from attacks.engine.difference import Difference
from attacks.engine.losses import lane_losses
from attacks.engine.program import Program
from fl.losses import task_loss
from fl.specs import Task
from fl.types import Tensors


class Formulation(Protocol):
    """Computes the gradients of B lanes, each with weights of its own."""

    def load(self, lane: int, tensors: Tensors) -> None:
        """Give a lane the parameters and buffers of a model's state."""

    def gradients(self, inputs: Tensor, labels: Tensor, task: Task, names: Sequence[str]) -> Tensors:
        """Return the gradients of lanes' losses in the named parameters, each with B rows.

        Args:
            inputs: `B x n x C x H x W`, normalised; the result is differentiable in them.
            labels: `B x n x outputs` in [0, 1], in which it is differentiable as well.
            task: Decides the loss.
            names: The parameters.
        """


class Layers:
    """One forward pass for all lanes with a row of parameters each (`attacks.engine.program`).

    Raises:
        UnsupportedModelError: If the model has an operation that is not known to treat images alone.
    """

    def __init__(self, model: nn.Module, lanes: int) -> None:
        self._program = Program(model, lanes)

    def load(self, lane: int, tensors: Tensors) -> None:
        """Give a lane its weights."""
        self._program.load(lane, tensors)

    def gradients(self, inputs: Tensor, labels: Tensor, task: Task, names: Sequence[str]) -> Tensors:
        """Return lanes' gradients."""
        losses = lane_losses(task, self._program(inputs), labels)
        return self._program.gradients(losses.sum(), names)


class Vectorised:
    """`torch.func` over the model as it is; for more models than `Layers`, and slower."""

    def __init__(self, model: nn.Module, lanes: int) -> None:
        self._model = model
        self._rows = {
            name: tensor.detach().new_zeros(lanes, *tensor.shape)
            for name, tensor in model.state_dict(keep_vars=True).items()
        }

    def load(self, lane: int, tensors: Tensors) -> None:
        """Give a lane its weights."""
        for name, rows in self._rows.items():
            rows[lane] = tensors[name]

    def gradients(self, inputs: Tensor, labels: Tensor, task: Task, names: Sequence[str]) -> Tensors:
        """Return lanes' gradients."""
        chosen = {name: self._rows[name] for name in names}
        rest = {name: rows for name, rows in self._rows.items() if name not in chosen}

        def loss(trained: Tensors, fixed: Tensors, images: Tensor, targets: Tensor) -> Tensor:
            logits: Tensor = functional_call(self._model, {**trained, **fixed}, (images,))
            return task_loss(task, logits, targets)

        rows: Tensors = torch.vmap(grad(loss))(chosen, rest, inputs, labels)
        return rows


FORMULATIONS: Mapping[str, Callable[[nn.Module, int], Formulation]] = {
    "layers": Layers,
    "difference": Difference,
    "vmap": Vectorised,
}
