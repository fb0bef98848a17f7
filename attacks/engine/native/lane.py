"""A target in the native kernel's memory, and L-BFGS on it."""

from __future__ import annotations

import weakref
from ctypes import CDLL
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attacks.engine.graphs import UnsupportedModelError
from attacks.engine.native.build import library
from attacks.engine.native.chain import Stage, chain
from attacks.engine.objective import ObjectiveSpec, Target
from fl.types import Tensors


class Step(NamedTuple):
    """An outer step of L-BFGS.

    Attributes:
        total: The objective where it began.
        evaluations: Of the objective, the first included.
        dead: Whether the last of them was not finite.
    """

    total: float
    evaluations: int
    dead: bool


class Lane:
    """One target at a time. Its variables are the images, `n x C x H x W`, and label logits if optimised.

    Args:
        spec: The objective.
        model: Decides the graph; the weights come with the target.

    Raises:
        UnsupportedModelError: If the kernel cannot be had here, or cannot compute this.
        MemoryError: If there is no room for the history.
    """

    def __init__(self, spec: ObjectiveSpec, model: nn.Module) -> None:
        self._spec = spec
        self._stages = _supported(spec, model)
        kernel = library()
        if kernel is None:
            raise UnsupportedModelError("there is no native kernel")
        self._kernel: CDLL = kernel
        problem = torch.tensor(
            [spec.images, spec.joint, spec.task.loss == "binary_cross_entropy", spec.cost == "cosine"]
        ).long()
        shapes = torch.tensor([stage.numbers for stage in self._stages])
        self._handle = kernel.lane_create(problem.data_ptr(), shapes.data_ptr(), len(shapes))
        if self._handle is None:
            raise MemoryError
        weakref.finalize(self, kernel.lane_destroy, self._handle)
        outputs = spec.images * spec.task.outputs if spec.joint else 0
        self._like = torch.empty(spec.pixels + outputs)

    def load(self, target: Target) -> None:
        """Take in a target."""
        weights = dict(self._spec.weights or dict.fromkeys(self._spec.names, 1.0))
        for index, stage in enumerate(self._stages):
            tensors = [_plain(target.tensors, name) for name in stage.parameters]
            self._kernel.lane_load_layer(self._handle, index, *_addresses(tensors))
            arguments: list[int | float | None] = []
            observed = [
                _plain(target.observed, name, like=like) if name in self._spec.matched else None
                for name, like in zip(stage.parameters, tensors, strict=True)
            ]
            for address, name in zip(_addresses(observed), _both(stage), strict=True):
                arguments += [address, weights.get(name, 0.0)]
            self._kernel.lane_load_target(self._handle, index, *arguments)
        if target.labels is not None:
            labels = target.labels.float().contiguous()
            assert labels.shape == (self._spec.images, self._spec.task.outputs)
            self._kernel.lane_load_labels(self._handle, labels.data_ptr())

    def start(self, values: Tensor) -> None:
        """Begin a run, without history."""
        values = values.contiguous()
        assert values.shape == self._like.shape
        assert values.dtype == torch.float32
        self._kernel.lane_start(self._handle, values.data_ptr())

    @property
    def values(self) -> Tensor:
        """The variables."""
        values = torch.empty_like(self._like)
        self._kernel.lane_read(self._handle, values.data_ptr())
        return values

    @property
    def gradient(self) -> Tensor:
        """The objective's gradient where it was evaluated last."""
        gradient = torch.empty_like(self._like)
        self._kernel.lane_read_gradient(self._handle, gradient.data_ptr())
        return gradient

    def evaluate(self) -> float:
        """Return the objective; compute its gradient."""
        return float(self._kernel.lane_evaluate(self._handle))

    def step(self, budget: float) -> Step:
        """Take an outer step as `torch.optim.LBFGS.step` does: 20 moves, at most `budget` evaluations."""
        began = torch.empty(1)
        evaluations = self._kernel.lane_step(self._handle, budget, began.data_ptr())
        return Step(float(began), abs(evaluations), evaluations < 0)


def _supported(spec: ObjectiveSpec, model: nn.Module) -> tuple[Stage, ...]:
    like = next(model.parameters())
    known = ObjectiveSpec(
        task=spec.task,
        images=spec.images,
        shape=spec.shape,
        names=spec.names,
        matched=spec.matched,
        cost=spec.cost,
        weights=spec.weights,
        varied=False,
        joint=spec.joint,
        mirrored=False,
    )
    if spec != known or spec.cost not in ("l2", "cosine"):
        raise UnsupportedModelError("the native kernel does not know the objective")
    if like.device.type != "cpu" or like.dtype != torch.float32:
        raise UnsupportedModelError("the native kernel computes on the CPU in single precision")
    stages = chain(model, spec.shape)
    if not set(spec.names) <= {name for stage in stages for name in stage.parameters}:
        raise UnsupportedModelError("it has parameters outside its layers")
    return stages


def _both(stage: Stage) -> tuple[str, str]:
    return f"{stage.name}.weight", f"{stage.name}.bias"


def _plain(tensors: Tensors, name: str, *, like: Tensor | None = None) -> Tensor:
    """Return a tensor as the kernel reads it, of the shape of another where one is given."""
    tensor = tensors[name].detach().float().contiguous()
    if like is not None and tensor.shape != like.shape:
        raise ValueError(f"{name}: expected {tuple(like.shape)}, got {tuple(tensor.shape)}")
    return tensor


def _addresses(tensors: list[Tensor | None] | list[Tensor]) -> list[int | None]:
    """Return addresses of a weight and a bias, None for what is not there."""
    found = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    return [*found, *[None] * (2 - len(found))]
