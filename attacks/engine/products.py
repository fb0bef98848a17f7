"""Costs that take no more of a gradient than its inner products with itself and with the observed one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from attacks.objectives import TINY, CostName, Weights
from fl.specs import Task
from fl.types import Tensors


class Products(NamedTuple):
    """Inner products of lanes' gradients g by parameter, each `B`.

    Attributes:
        dots: <g, g*> with the observed gradient.
        squares: <g, g>.
    """

    dots: Tensors
    squares: Tensors


@runtime_checkable
class Aiming(Protocol):
    """A formulation that computes inner products for less than gradients."""

    def aim(self, lane: int, observed: Tensors) -> None:
        """Give a lane the observed gradient that products are with, after its weights."""

    def products(self, inputs: Tensor, labels: Tensor, task: Task, names: Sequence[str]) -> Products:
        """Return what `Formulation.gradients` has the inner products of, as differentiable as that."""


ProductCost = Callable[[Products, Tensors, Weights | None], Tensor]
"""From products and the observed gradient's squared norms, all `B` by parameter, to `B` costs."""


def _cosine(products: Products, observed: Tensors, weights: Weights | None) -> Tensor:
    dot, square, observed_square = (_sum(rows, weights) for rows in (*products, observed))
    return 1 - dot / ((square + TINY).sqrt() * (observed_square + TINY).sqrt())


def _cosine_per_tensor(products: Products, observed: Tensors, weights: Weights | None) -> Tensor:
    each = {
        name: _cosine(Products({name: dot}, {name: products.squares[name]}), {name: observed[name]}, None)
        for name, dot in products.dots.items()
    }
    return _sum(each, weights)


PRODUCT_COSTS: Mapping[CostName, ProductCost] = {"cosine": _cosine, "cosine_per_tensor": _cosine_per_tensor}
"""Row by row those of `attacks.objectives.COSTS`; a squared distance would lose its digits near zero."""


def _sum(terms: Tensors, weights: Weights | None) -> Tensor:
    """Add up rows of lanes, term by term."""
    weighted = [term if weights is None else term * weights[name] for name, term in terms.items()]
    return reduce(torch.add, weighted)
