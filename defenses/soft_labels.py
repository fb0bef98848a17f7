"""Labels as what the loss compares with: probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from fl.specs import Task

if TYPE_CHECKING:
    from torch import Tensor


def soft_labels(labels: Tensor, task: Task, like: Tensor) -> Tensor:
    """Return labels as floats: multiclass `n x classes`, else of the shape they have.

    Args:
        labels: `n` int64 (classes, or 0 and 1 of a single output), or already floats.
        task: What the model is trained for.
        like: A tensor of the type wanted.
    """
    if labels.is_floating_point():
        return labels
    if task.kind == "multiclass":
        labels = F.one_hot(labels, task.classes)
    return labels.to(like.dtype)
