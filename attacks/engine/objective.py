"""The objective of gradient matching and its gradient in images and label logits, for all lanes at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.engine.formulations import Formulation
from attacks.engine.layers import CACHE_LINE
from attacks.objectives import COSTS, TINY, CostName, Weights, total_variation
from fl.specs import Task
from fl.types import Tensors

Mirror = Callable[[Tensors], Tensors]
"""What a defense does after the gradient, with the parameters inferred for one target."""

LaneCost = Callable[[Tensors, Tensors, Weights | None], Tensor]


@dataclass(frozen=True)
class ObjectiveSpec:
    """What all lanes of a batch share.

    Attributes:
        task: Decides the loss.
        images: n, behind each update.
        shape: C x H x W.
        names: The observed tensors, all of which the defense's mirror sees.
        matched: Those that are compared.
        cost: The distance.
        weights: What each tensor counts, by name and in the order of the names; None where all count alike.
        varied: Whether total variation is part of it.
        joint: Whether label logits are variables.
        mirrored: Whether what a defense does after the gradient is applied, by each lane's task's.
    """

    task: Task
    images: int
    shape: tuple[int, int, int]
    names: tuple[str, ...]
    matched: tuple[str, ...]
    cost: CostName
    weights: tuple[tuple[str, float], ...] | None
    varied: bool
    joint: bool
    mirrored: bool

    @property
    def pixels(self) -> int:
        """Variables of the images."""
        channels, height, width = self.shape
        return self.images * channels * height * width

    @property
    def variables(self) -> int:
        """D: pixels, label logits where they are optimised, and zeros up to a whole cache line.

        A matrix-vector product depends, in its last bits, on where its rows lie in memory.
        """
        used = self.pixels + (self.images * self.task.outputs if self.joint else 0)
        return used + -used % CACHE_LINE


class Target(NamedTuple):
    """What a lane is matched against.

    Attributes:
        tensors: The model's parameters and buffers.
        observed: The observed gradient by name.
        labels: `n x outputs`, probabilities; None where they are variables.
        total_variation: Its weight.
        scale: What turns a gradient into the units of the update.
        mirror: What the defense does after the gradient; None where it is not mirrored.
    """

    tensors: Tensors
    observed: Tensors
    labels: Tensor | None
    total_variation: float
    scale: float
    mirror: Mirror | None


class Evaluated(NamedTuple):
    """The objective of B lanes.

    Attributes:
        total: What is minimised, `B`.
        terms: Its terms by name, unweighted, each `B`.
        gradients: Of `total` in the variables, `B x D`.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
    gradients: Tensor


class LaneObjective:
    """The objective over lanes.

    Args:
        spec: What lanes share.
        formulation: Computes lanes' gradients.
        lanes: B.
        like: Decides dtype and device.
    """

    def __init__(self, spec: ObjectiveSpec, formulation: Formulation, lanes: int, like: Tensor) -> None:
        self._spec = spec
        self._formulation = formulation
        self._lanes = lanes
        self._cost = _lane_cost(spec.cost)
        self._weights = None if spec.weights is None else dict(spec.weights)
        self._labels = like.new_zeros(lanes, spec.images, spec.task.outputs)
        self._variation = like.new_zeros(lanes)
        self._observed: dict[str, Tensor] = {}
        self._mirrors: list[Mirror | None] = [None] * lanes
        self._scales = [1.0] * lanes

    def load(self, lane: int, target: Target) -> None:
        """Give a lane its target."""
        self._formulation.load(lane, target.tensors)
        for name in self._spec.matched:
            observed = target.observed[name]
            if name not in self._observed:
                self._observed[name] = _rows_like(observed, self._lanes)
            self._observed[name][lane] = observed
        if target.labels is not None:
            self._labels[lane] = target.labels
        self._variation[lane] = target.total_variation
        self._mirrors[lane], self._scales[lane] = target.mirror, target.scale

    def evaluate(self, values: Tensor) -> Evaluated:
        """Evaluate at `values`, `B x D`."""
        spec = self._spec
        inputs = values[:, : spec.pixels].reshape(-1, spec.images, *spec.shape).requires_grad_()
        variables, labels = [inputs], self._labels
        if spec.joint:
            used = values[:, spec.pixels : spec.pixels + self._labels[0].numel()]
            logits = used.reshape(self._labels.shape).requires_grad_()
            variables.append(logits)
            labels = logits.softmax(2) if spec.task.kind == "multiclass" else logits.sigmoid()
        dummy = self._formulation.gradients(inputs, labels, spec.task, spec.names)
        if spec.mirrored:
            dummy = self._mirrored(dummy)
        matching = self._cost(dummy, self._observed, self._weights)
        total, terms = matching, {"matching": matching.detach()}
        if spec.varied:
            variation = torch.vmap(total_variation)(inputs)
            total = matching + self._variation * variation
            terms["total_variation"] = variation.detach()
        gradients = torch.autograd.grad(total.sum(), variables)
        flat = torch.cat([gradient.reshape(self._lanes, -1) for gradient in gradients], 1)
        padded = F.pad(flat, (0, spec.variables - flat.shape[1]))
        return Evaluated(total.detach(), {**terms, "total": total.detach()}, padded)

    def _mirrored(self, gradients: Tensors) -> Tensors:
        """Apply each lane's mirror to its row, in units of the update; an idle row is left as it is."""
        rows = [
            self._row(lane, {name: rows[lane] for name, rows in gradients.items()})
            for lane in range(self._lanes)
        ]
        return {name: torch.stack([row[name] for row in rows]) for name in gradients}

    def _row(self, lane: int, gradients: Tensors) -> Tensors:
        mirror, scale = self._mirrors[lane], self._scales[lane]
        if mirror is None:
            return gradients
        mirrored = mirror({name: tensor * scale for name, tensor in gradients.items()})
        return {name: tensor / scale for name, tensor in mirrored.items()}


def _rows_like(tensor: Tensor, lanes: int) -> Tensor:
    """Return B rows of zeros, those of a convolution with channels last, as its gradients are."""
    if tensor.ndim != 4:
        return tensor.new_zeros(lanes, *tensor.shape)
    outputs, channels, height, width = tensor.shape
    return tensor.new_zeros(lanes, outputs, height, width, channels).permute(0, 1, 4, 2, 3)


def _lane_cost(name: CostName) -> LaneCost:
    """Return a cost with rows of lanes; each is `attacks.objectives.COSTS`' row by row."""
    if name == "l2":
        return _l2
    if name == "cosine":
        return _cosine

    def vectorised(dummy: Tensors, observed: Tensors, weights: Weights | None) -> Tensor:
        matched = {name: dummy[name] for name in observed}
        rows: Tensor = torch.vmap(lambda d, o: COSTS[name](d, o, weights))(matched, dict(observed))
        return rows

    return vectorised


def _l2(dummy: Tensors, observed: Tensors, weights: Weights | None) -> Tensor:
    return _sum({name: _row_sums((dummy[name] - rows).square()) for name, rows in observed.items()}, weights)


def _cosine(dummy: Tensors, observed: Tensors, weights: Weights | None) -> Tensor:
    dot = _sum({name: _row_sums(dummy[name] * rows) for name, rows in observed.items()}, weights)
    norms = [
        (_sum({name: _row_sums(rows[name].square()) for name in observed}, weights) + TINY).sqrt()
        for rows in (dummy, observed)
    ]
    return 1 - dot / (norms[0] * norms[1])


def _row_sums(rows: Tensor) -> Tensor:
    return rows.sum(tuple(range(1, rows.ndim)))


def _sum(terms: Mapping[str, Tensor], weights: Weights | None) -> Tensor:
    """Add up rows of lanes, term by term: the sum of a stack depends, in its last bits, on the lane."""
    weighted = [t if weights is None else t * weights[name] for name, t in terms.items()]
    return reduce(torch.add, weighted)
