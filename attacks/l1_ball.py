"""Projection onto an l1 ball, many rows at once."""

from __future__ import annotations

import torch
from torch import Tensor


def projected(rows: Tensor, radius: float) -> Tensor:
    """Return the nearest points whose entries' absolute values sum to no more than `radius`.

    Entries shrink by the one amount that makes the sum of what is left the radius (Duchi et al. 2008,
    Efficient Projections onto the l1-Ball for Learning in High Dimensions, lemmas 1 and 2). Instead of by
    sorting, whose cumulated sums have no deterministic form on a GPU, it is found by Newton's method from
    below, which stops at it after as many steps as entries drop out in turn (Michelot 1986).

    Args:
        rows: `B x D`; one with an entry that is not finite has no such point and stays not finite.
        radius: At least 0.
    """
    lengths = rows.abs().double()
    shrunk_by = lengths.new_zeros(len(rows), 1)
    while True:
        left = lengths > shrunk_by
        surplus = (lengths * left).sum(1, keepdim=True) - radius
        found = torch.maximum(surplus / left.sum(1, keepdim=True).clamp(min=1), shrunk_by)
        if not bool((found > shrunk_by).any()):
            return rows.sign() * (lengths - shrunk_by).clamp(min=0).to(rows)
        shrunk_by = found
