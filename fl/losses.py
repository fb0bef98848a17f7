"""The training losses, in one place: which one is the task's business and never inferred from shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from fl.specs import Task

if TYPE_CHECKING:
    from torch import Tensor


def task_loss(task: Task, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss over the batch (and over the outputs for sigmoid losses), a scalar.

    Args:
        task: Decides between softmax cross-entropy and sigmoid binary cross-entropy.
        logits: `n x outputs`.
        labels: Multiclass: `n` int64, or `n x classes` probabilities. Binary and multilabel: `n x outputs`
            in [0, 1], or for a single output `n`.
    """
    if task.loss == "cross_entropy":
        return F.cross_entropy(logits, labels)
    targets = labels.to(logits.dtype).reshape(logits.shape)
    return F.binary_cross_entropy_with_logits(logits, targets)
