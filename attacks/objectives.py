"""What gradient matching minimises: costs between gradients by tensor name, and priors on images.

A cost takes the dummy gradient, the observed tensors to match (others of the dummy are ignored) and, where
they do not count alike, a weight for each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from fl.types import Tensors

Weights = Mapping[str, float]
CostName = Literal["cosine", "l2", "l1", "cosine_per_tensor", "norm_per_tensor"]

TINY = 1e-30
"""Added to squared norms: far below any gradient's, and it keeps the cosine of a zero gradient finite."""


class Cost(Protocol):
    """A distance between gradients."""

    def __call__(self, dummy: Tensors, observed: Tensors, weights: Weights | None = None) -> Tensor:
        """Return the cost over the observed tensors, a scalar; without weights all count 1."""


def l2(dummy: Tensors, observed: Tensors, weights: Weights | None = None) -> Tensor:
    """Return the squared Euclidean distance over all observed tensors, a scalar.

    Source: Zhu et al. 2019, arXiv 1906.08935, equation 4.
    """
    return _sum({k: (dummy[k] - tensor).square().sum() for k, tensor in observed.items()}, weights)


def l1(dummy: Tensors, observed: Tensors, weights: Weights | None = None) -> Tensor:
    """Return the sum of absolute differences over all observed tensors, a scalar.

    Source: the reference implementation of Geiping et al. 2020.
    """
    return _sum({k: (dummy[k] - tensor).abs().sum() for k, tensor in observed.items()}, weights)


def cosine(dummy: Tensors, observed: Tensors, weights: Weights | None = None) -> Tensor:
    """Return 1 - cos, one cosine over all observed tensors as a single vector, a scalar in [0, 2].

    A zero gradient has cosine 0 with everything. A weight multiplies the products of its tensor in the dot
    product and in both norms. Source: Geiping et al. 2020, arXiv 2003.14053, equation 4.
    """
    dot = _sum({k: (dummy[k] * tensor).sum() for k, tensor in observed.items()}, weights)
    dummy_norm = (_sum({k: dummy[k].square().sum() for k in observed}, weights) + TINY).sqrt()
    observed_norm = _sum({k: tensor.square().sum() for k, tensor in observed.items()}, weights)
    return 1 - dot / (dummy_norm * (observed_norm + TINY).sqrt())


def cosine_per_tensor(dummy: Tensors, observed: Tensors, weights: Weights | None = None) -> Tensor:
    """Return the sum over observed tensors of 1 - cos, a scalar.

    Source: the reference implementation of Geiping et al. 2020 (`simlocal`).
    """
    return _sum({k: cosine({k: dummy[k]}, {k: tensor}) for k, tensor in observed.items()}, weights)


def norm_per_tensor(dummy: Tensors, observed: Tensors, weights: Weights | None = None) -> Tensor:
    """Return the sum over observed tensors of the Euclidean norm of the difference, a scalar.

    Source: Yin et al. 2021, arXiv 2104.07586, equation 2.
    """
    squares = {k: (dummy[k] - tensor).square().sum() for k, tensor in observed.items()}
    return _sum({k: (square + TINY).sqrt() for k, square in squares.items()}, weights)


def squared_norm(tensors: Tensors) -> Tensor:
    """Return the sum of squares over all tensors, a scalar."""
    return torch.stack([tensor.square().sum() for tensor in tensors.values()]).sum()


def total_variation(images: Tensor) -> Tensor:
    """Return the anisotropic total variation of `n x C x H x W`: mean horizontal plus mean vertical step.

    Source: the reference implementation of Geiping et al. 2020 (means, not sums, over batch and channels).
    """
    horizontal = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    vertical = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    return horizontal + vertical


class TensorChoice(NamedTuple):
    """Which of the observed tensors are matched, and how much each counts.

    Source: the reference implementation of Geiping et al. 2020.

    Attributes:
        which: `all`, the `first` or `last` of the model, or those with the `largest` Euclidean norm.
        number: How many; None for `all`.
        weighting: Of the i-th of P observed tensors, i from 0 in the model's order: `equal`: 1, `linear`:
            (P - i) / P, `exp`: e^-i.
    """

    which: Literal["all", "first", "last", "largest"] = "all"
    number: int | None = None
    weighting: Literal["equal", "linear", "exp"] = "equal"

    def chosen(self, observed: Tensors, order: Sequence[str]) -> Tensors:
        """Return the tensors of `observed` that are matched; `order` has their names in the model's order."""
        names = list(order)
        if self.which == "largest":
            names.sort(key=lambda name: -float(observed[name].norm()))
        kept = set(names[-self.number :] if self.which == "last" and self.number else names[: self.number])
        return {name: tensor for name, tensor in observed.items() if name in kept}

    def weights(self, order: Sequence[str]) -> Weights | None:
        """Return the weight of each observed tensor, or None where all count alike."""
        if self.weighting == "equal":
            return None
        if self.weighting == "linear":
            return {name: 1 - i / len(order) for i, name in enumerate(order)}
        return {name: math.exp(-i) for i, name in enumerate(order)}


def _sum(terms: Tensors, weights: Weights | None) -> Tensor:
    return torch.stack([t if weights is None else t * weights[name] for name, t in terms.items()]).sum()


ALL_TENSORS = TensorChoice()
"""Every observed tensor, all counting alike."""

COSTS: Mapping[CostName, Cost] = {
    "cosine": cosine,
    "l2": l2,
    "l1": l1,
    "cosine_per_tensor": cosine_per_tensor,
    "norm_per_tensor": norm_per_tensor,
}
