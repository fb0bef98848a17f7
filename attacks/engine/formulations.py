"""Ways to compute the gradients of all lanes at once; the plain loop of `attacks.matching` is the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from attacks.engine.difference import Difference
from attacks.engine.graphs import UnsupportedModelError
from attacks.engine.losses import lane_losses
from attacks.engine.products import Products
from attacks.engine.program import Program
from attacks.engine.tangent import TangentPasses
from fl.batch_norm import Moments
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


@runtime_checkable
class Watching(Protocol):
    """A formulation that can tell what batch norms take in."""

    @property
    def moments(self) -> Mapping[str, Moments]:
        """Those of the last evaluation, by layer, `B x C`, with a graph."""


class Layers:
    """One forward pass for all lanes with a row of parameters each (`attacks.engine.program`).

    Args:
        model: The model.
        lanes: B.
        watched: Whether moments are kept.

    Raises:
        UnsupportedModelError: If the model has an operation that is not known to treat images alone.
    """

    def __init__(self, model: nn.Module, lanes: int, *, watched: bool = False) -> None:
        self._program = Program(model, lanes, watch=watched)

    @property
    def moments(self) -> Mapping[str, Moments]:
        """Those of the last evaluation."""
        return self._program.moments

    def load(self, lane: int, tensors: Tensors) -> None:
        """Give a lane its weights."""
        self._program.load(lane, tensors)

    def gradients(self, inputs: Tensor, labels: Tensor, task: Task, names: Sequence[str]) -> Tensors:
        """Return lanes' gradients."""
        losses = lane_losses(task, self._program(inputs), labels)
        return self._program.gradients(losses.sum(), names)

    def aim(self, lane: int, observed: Tensors) -> None:
        """Give a lane the observed gradient that `products` are with."""
        self._program.aim(lane, observed)

    def products(self, inputs: Tensor, labels: Tensor, task: Task, names: Sequence[str]) -> Products:
        """Return the inner products of lanes' gradients in the named parameters."""
        losses = lane_losses(task, self._program(inputs), labels)
        return self._program.products(losses.sum(), names)


class Vectorised:
    """`torch.func` over the model as it is; for more models than `Layers`, and slower.

    Raises:
        UnsupportedModelError: If a layer draws or takes batch statistics: under vmap, the second derivative
            of batch norm in train mode is not exact.
    """

    def __init__(self, model: nn.Module, lanes: int) -> None:
        check_deterministic(model)
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


def check_deterministic(model: nn.Module) -> None:
    """Raise an error about a layer that draws or takes the statistics of its batch.

    Raises:
        UnsupportedModelError: If there is one.
    """
    for name, module in model.named_modules():
        if module.training and isinstance(module, _BatchNorm | _DropoutNd):
            raise UnsupportedModelError(f"{name!r} is a {type(module).__name__} in train mode")


FORMULATIONS: Mapping[str, Callable[[nn.Module, int], Formulation]] = {
    "layers": Layers,
    "difference": Difference,
    "tangent": TangentPasses,
    "vmap": Vectorised,
}

WATCHED: Mapping[str, Callable[[nn.Module, int], Formulation]] = {
    "layers": partial(Layers, watched=True),
    "tangent": partial(TangentPasses, watched=True),
}
"""Those that are `Watching`, when asked for it."""
