"""Derivatives for steps: what rounding and signs hand back to whoever differentiates through them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def straight_through(value: Tensor, surrogate: Tensor) -> Tensor:
    """Return `value`, exactly, with the derivative of `surrogate`.

    With the input of a threshold for surrogate it is the straight-through estimator of Bengio et al. 2013,
    arXiv 1308.3432.
    """
    return value.detach() + (surrogate - surrogate.detach())
