"""Costs that take no more of a gradient than its inner products with itself and with the observed one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from attacks.objectives import TINY, CostName, Weights
from fl.specs import Task
from fl.types import Tensors

BLOCK = 2**15
"""Entries of a block, several of which fit a processor's second-level cache."""


class Products(NamedTuple):
    """Inner products of lanes' gradients g by parameter, each `B`.

    Attributes:
        dots: <g, g*> with the observed gradient.
        squares: <g, g>.
    """

    dots: Tensors
    squares: Tensors


class Product(NamedTuple):
    """Inner products of one parameter's gradient g in lanes, each `B`.

    Attributes:
        dot: <g, g*>.
        square: <g, g>.
    """

    dot: Tensor
    square: Tensor


@runtime_checkable
class Aiming(Protocol):
    """A formulation that computes inner products for less than gradients."""

    def aim(self, lane: int, observed: Tensors) -> None:
        """Give a lane the observed gradient that products are with, after its weights."""

    def products(self, inputs: Tensor, labels: Tensor, task: Task, names: Sequence[str]) -> Products:
        """Return what `Formulation.gradients` has the inner products of, as differentiable as that."""


def product(gradient: Tensor, observed: Tensor) -> Product:
    """Return the inner products of `B x ...` and `B x ...`."""
    flat = gradient.flatten(1)
    return Product((flat * observed.flatten(1)).sum(1), flat.square().sum(1))


def row_products(rows: Tensor, fixed: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return <r, f> for each of several `R x K`, and <r, r>; each `R`, and differentiable once in the rows.

    What is computed is small and what it is read from is large, so that rows are taken by blocks that stay in
    the processor's cache.
    """
    found: tuple[Tensor, ...] = _RowProducts.apply(rows, *fixed)
    return found


class _RowProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, *fixed: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(rows, *fixed)
        found = [rows.new_empty(len(rows)) for _ in (*fixed, rows)]
        for block in _blocks(rows):
            for dots, other in zip(found, (*fixed, rows), strict=True):
                torch.linalg.vecdot(rows[block], other[block], out=dots[block])
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, *fixed = ctx.saved_tensors
        *along, to_squares = (gradient.unsqueeze(1) for gradient in gradients)
        twice, combined = 2 * to_squares, torch.empty_like(rows)
        for block in _blocks(rows):
            part = torch.mul(rows[block], twice[block], out=combined[block])
            for weights, other in zip(along, fixed, strict=True):
                part.addcmul_(other[block], weights[block])
        return combined, *[None] * len(fixed)


def _blocks(rows: Tensor) -> list[slice]:
    step = max(1, BLOCK // rows.shape[1])
    return [slice(start, start + step) for start in range(0, len(rows), step)]


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
