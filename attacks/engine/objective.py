"""The objective of gradient matching and its gradient in images and label logits, for all lanes at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.engine.formulations import Formulation, Watching
from attacks.engine.layers import CACHE_LINE, rows_like
from attacks.engine.products import PRODUCT_COSTS, Aiming
from attacks.engine.regularisers import LaneRegularisers
from attacks.objectives import COSTS, TINY, CostName, Weights
from attacks.regularisers import VariationName
from fl.batch_norm import Moments
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
        variation: Which total variation.
        normed: Whether the images' norm is part of it.
        watched: The batch norms whose inputs' statistics are compared.
        grouped: Whether restarts of a task step together.
        weighted: Whether the distance counts other than 1.
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
    variation: VariationName = "anisotropic"
    normed: bool = False
    watched: tuple[str, ...] = ()
    grouped: bool = False
    weighted: bool = False

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
        matching: Weight of the distance between gradients.
        image_norm: Weight of the images' norm.
        batch_norm: Weight of the distance from batch-norm statistics.
        statistics: These, by layer.
        group: Weight of the distance from the restarts' mean.
    """

    tensors: Tensors
    observed: Tensors
    labels: Tensor | None
    total_variation: float
    scale: float
    mirror: Mirror | None
    matching: float = 1.0
    image_norm: float = 0.0
    batch_norm: float = 0.0
    statistics: Mapping[str, Moments] = MappingProxyType({})
    group: float = 0.0


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
        self._weight = like.new_ones(lanes)
        self._regularisers = LaneRegularisers(spec, lanes, like)
        self._observed: dict[str, Tensor] = {}
        plain = spec.cost in PRODUCT_COSTS and not spec.mirrored
        self._watching = formulation if spec.watched and isinstance(formulation, Watching) else None
        self._aimed = formulation if plain and isinstance(formulation, Aiming) else None
        self._squares = {name: like.new_zeros(lanes) for name in spec.matched}
        self._mirrors: list[Mirror | None] = [None] * lanes
        self._scales = [1.0] * lanes

    def load(self, lane: int, target: Target) -> None:
        """Give a lane its target."""
        self._formulation.load(lane, target.tensors)
        self._observe(lane, {name: target.observed[name] for name in self._spec.matched})
        if target.labels is not None:
            self._labels[lane] = target.labels
        self._weight[lane] = target.matching
        self._regularisers.load(lane, target)
        self._mirrors[lane], self._scales[lane] = target.mirror, target.scale

    def _observe(self, lane: int, matched: Tensors) -> None:
        """Give a lane the observed gradient, or to who only takes products with it."""
        if self._aimed is not None:
            self._aimed.aim(lane, matched)
            for name, observed in matched.items():
                self._squares[name][lane] = observed.square().sum()
            return
        for name, observed in matched.items():
            if name not in self._observed:
                self._observed[name] = rows_like(observed, self._lanes)
            self._observed[name][lane] = observed

    def gather(self, lane: int, mean: Tensor) -> None:
        """Draw a lane to the mean of its task's restarts, `n x C x H x W` or flat."""
        self._regularisers.gather(lane, mean)

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
        matching = self._matching(inputs, labels)
        total, terms = self._weight * matching, {"matching": matching.detach()}
        moments = {} if self._watching is None else self._watching.moments
        for name, term in self._regularisers.terms(inputs, moments).items():
            total = total + term.weight * term.rows
            terms[name] = term.rows.detach()
        gradients = torch.autograd.grad(total.sum(), variables)
        flat = torch.cat([gradient.reshape(self._lanes, -1) for gradient in gradients], 1)
        padded = F.pad(flat, (0, spec.variables - flat.shape[1]))
        return Evaluated(total.detach(), {**terms, "total": total.detach()}, padded)

    def _matching(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the distance of each lane, `B`."""
        spec = self._spec
        if self._aimed is not None:
            products = self._aimed.products(inputs, labels, spec.task, spec.matched)
            return PRODUCT_COSTS[spec.cost](products, self._squares, self._weights)
        dummy = self._formulation.gradients(inputs, labels, spec.task, spec.names)
        if spec.mirrored:
            dummy = self._mirrored(dummy)
        return self._cost(dummy, self._observed, self._weights)

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


def _lane_cost(name: CostName) -> LaneCost:
    """Return a cost with rows of lanes; each is `attacks.objectives.COSTS`' row by row."""
    if name == "l2":
        return _l2
    if name == "cosine":
        return _cosine
    if name == "norm_per_tensor":
        return _norms

    def vectorised(dummy: Tensors, observed: Tensors, weights: Weights | None) -> Tensor:
        matched = {name: dummy[name] for name in observed}
        rows: Tensor = torch.vmap(lambda d, o: COSTS[name](d, o, weights))(matched, dict(observed))
        return rows

    return vectorised


def _l2(dummy: Tensors, observed: Tensors, weights: Weights | None) -> Tensor:
    return _sum({name: _row_sums((dummy[name] - rows).square()) for name, rows in observed.items()}, weights)


def _norms(dummy: Tensors, observed: Tensors, weights: Weights | None) -> Tensor:
    squares = {name: _row_sums((dummy[name] - rows).square()) for name, rows in observed.items()}
    return _sum({name: (square + TINY).sqrt() for name, square in squares.items()}, weights)


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
