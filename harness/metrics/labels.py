"""How many of a target's private labels were recovered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Label = int | tuple[int, ...]
"""A class, or one 0/1 entry per output (multilabel)."""


def label_accuracy(truth: Sequence[Label], recovered: Sequence[Label]) -> float:
    """Return the share of the private labels found among the recovered ones, each used once.

    Order does not matter: a gradient does not hold it.

    Args:
        truth: The n private labels, n >= 1.
        recovered: The m recovered labels.
    """
    return (Counter(truth) & Counter(recovered)).total() / len(truth)


def as_labels(labels: Tensor) -> tuple[Label, ...]:
    """Return `n` classes or `n x outputs` 0/1 values as plain labels; values are rounded.

    A single sigmoid output (`n x 1`) is the class 0 or 1.
    """
    rounded = labels.detach().cpu().round().long()
    if rounded.ndim == 2 and rounded.shape[1] == 1:
        rounded = rounded[:, 0]
    if rounded.ndim == 1:
        return tuple(int(label) for label in rounded)
    return tuple(tuple(int(entry) for entry in row) for row in rounded)
