"""How far the gradients of many candidates lie from the observed one, for searches that need no slope of it.

All candidates belong to one task, so they share its weights: one pass over all their images serves them, and
only the gradients of the weights are taken candidate by candidate, from what each layer took in and the slope
of its outputs (Goodfellow 2015, arXiv 1510.01799; for convolutions Rochette et al. 2019, arXiv 1912.06015).
Nothing is differentiated twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad

from attacks.engine.formulations import check_deterministic
from attacks.engine.graphs import UnsupportedModelError
from attacks.engine.layers import LaneLayer
from attacks.engine.losses import lane_losses, probabilities
from attacks.engine.program import Program
from attacks.objectives import COSTS, CostName, Weights
from fl.losses import task_loss

if TYPE_CHECKING:
    from attacks.problem import Problem
    from fl.types import Tensors

PopulationName = Literal["shared", "vmap", "reference"]

ROOM = {"cpu": 2**26, "cuda": 2**29}
"""Numbers that the gradients of candidates side by side may take, by type of device."""


class Aim(NamedTuple):
    """What candidates are compared with.

    Attributes:
        problem: The task's problem.
        labels: `n` int64, or `n x outputs` in [0, 1].
        cost: The distance.
        weights: What each tensor counts.
    """

    problem: Problem
    labels: Tensor
    cost: CostName
    weights: Weights

    def distance(self, gradients: Tensors, observed: Tensors) -> Tensor:
        """Return the distance of one candidate's gradient, a scalar, as the defense would have left it."""
        return COSTS[self.cost](self.problem.mirrored(gradients), observed, self.weights)


class Population(ABC):
    """Compares candidates of one task.

    Attributes:
        formulation: How.
        aim: As given.
        lanes: Candidates side by side.
    """

    formulation: PopulationName

    def __init__(self, aim: Aim, lanes: int) -> None:
        self.aim = aim
        self.lanes = lanes

    def distances(self, inputs: Tensor) -> Tensor:
        """Return the distances, `m`, for normalised images, `m x n x C x H x W`."""
        return torch.cat([self._beside(chunk) for chunk in torch.split(inputs, self.lanes)])

    @abstractmethod
    def _beside(self, inputs: Tensor) -> Tensor:
        """Return the distances of at most `lanes` candidates."""


class InTurn(Population):
    """One candidate at a time: the oracle, and what serves simulated clients and models of any kind."""

    formulation: PopulationName = "reference"

    def __init__(self, aim: Aim) -> None:
        super().__init__(aim, 1)

    def _beside(self, inputs: Tensor) -> Tensor:
        problem, labels = self.aim.problem, self.aim.labels
        if problem.simulated:
            simulated = problem.gradients(inputs[0], labels)
            return COSTS[self.aim.cost](simulated, problem.observed, self.aim.weights).detach().view(1)
        loss = task_loss(problem.task.observation.task, problem.model(inputs[0]), labels)
        parameters = [problem.model.get_parameter(name) for name in problem.observed]
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        found = dict(zip(problem.observed, gradients, strict=True))
        with torch.no_grad():
            return self.aim.distance(found, problem.observed).view(1)


class _Rows(Population):
    """Gradients of all candidates first, each a row; then their distances."""

    def __init__(self, aim: Aim, lanes: int) -> None:
        super().__init__(aim, lanes)
        self._labels = probabilities(aim.labels, aim.problem.task.observation.task)
        self._observed = {name: _channels_last(tensor) for name, tensor in aim.problem.observed.items()}

    def _beside(self, inputs: Tensor) -> Tensor:
        rows = self.gradients(inputs)
        with torch.no_grad():
            found: Tensor = torch.vmap(self.aim.distance, in_dims=(0, None))(rows, self._observed)
        return found

    @abstractmethod
    def gradients(self, inputs: Tensor) -> Tensors:
        """Return the gradient at each candidate, in the observed parameters, `B` rows each."""


class Shared(_Rows):
    """One pass over the images of all candidates, as of one lane; then each layer's gradients, row by row.

    Raises:
        UnsupportedModelError: If an operation is not known to treat images alone.
    """

    formulation: PopulationName = "shared"

    def __init__(self, aim: Aim, lanes: int) -> None:
        super().__init__(aim, lanes)
        model = aim.problem.model
        check_deterministic(model)
        self._program = Program(model, 1)
        self._program.load(0, model.state_dict())

    def gradients(self, inputs: Tensor) -> Tensors:
        """Return the rows."""
        problem, sizes = self.aim.problem, inputs.shape[:2]
        layers = self._program.layers
        taken: list[Tensor] = []
        edges: list[GradientEdge] = []

        def keep(layer: nn.Module, args: tuple[Tensor, ...], outputs: Tensor) -> None:
            taken.append(args[0].detach())
            edges.append(get_gradient_edge(outputs))

        with ExitStack() as hooks:
            for layer in layers:
                hooks.callback(layer.register_forward_hook(keep).remove)
            logits = self._program(inputs.flatten(0, 1).unsqueeze(0))
        labels = self._labels.expand(len(inputs), *self._labels.shape)
        losses = lane_losses(problem.task.observation.task, logits.view(*sizes, -1), labels)
        slopes = torch.autograd.grad(losses.sum(), edges)
        rows: dict[str, Tensor] = {}
        for layer, images, slope in zip(layers, taken, slopes, strict=True):
            rows |= _parameters(layer, *(part.reshape(*sizes, *part.shape[1:]) for part in (images, slope)))
        return {name: rows[name] for name in problem.observed}


class Vectorised(_Rows):
    """`torch.func` over the model as it is; for more models than `Shared`, and slower.

    Raises:
        UnsupportedModelError: If a layer draws or takes batch statistics.
    """

    formulation: PopulationName = "vmap"

    def __init__(self, aim: Aim, lanes: int) -> None:
        super().__init__(aim, lanes)
        check_deterministic(aim.problem.model)

    def gradients(self, inputs: Tensor) -> Tensors:
        """Return the rows."""
        problem = self.aim.problem
        chosen = {name: problem.model.get_parameter(name).detach() for name in problem.observed}

        def loss(trained: Tensors, images: Tensor) -> Tensor:
            logits: Tensor = functional_call(problem.model, dict(trained), (images,))
            return task_loss(problem.task.observation.task, logits, self._labels)

        rows: Tensors = torch.vmap(grad(loss), in_dims=(None, 0))(chosen, inputs)
        return rows


def population(aim: Aim, most: int) -> Population:
    """Return what compares candidates of a task in the fastest way that its model allows.

    Args:
        aim: What with.
        most: Candidates side by side.
    """
    problem = aim.problem
    if not problem.simulated:
        numbers = sum(tensor.numel() for tensor in problem.observed.values())
        lanes = max(1, min(most, ROOM[problem.device.type] // numbers))
        for formulation in (Shared, Vectorised) if lanes > 1 else ():
            with suppress(UnsupportedModelError):
                return formulation(aim, lanes)
    return InTurn(aim)


def _parameters(layer: LaneLayer, inputs: Tensor, slopes: Tensor) -> Tensors:
    """Return the gradients of a layer's parameters at each candidate, by the model's names."""
    if not layer.leaves:
        return {}
    with torch.no_grad():
        rows: Tensors = torch.vmap(layer.gradients)(layer.by_candidate(inputs, slopes))
    return {name: row.squeeze(1) for name, row in rows.items()}


def _channels_last(tensor: Tensor) -> Tensor:
    """Lay a convolution's gradient out as its rows are."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
