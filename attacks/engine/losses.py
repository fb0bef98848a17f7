"""The training losses over lanes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fl.specs import Task


def lane_losses(task: Task, logits: Tensor, labels: Tensor) -> Tensor:
    """Return each lane's mean loss, `B`, as `fl.losses.task_loss` of its images alone.

    Args:
        task: Decides between softmax cross-entropy and sigmoid binary cross-entropy.
        logits: `B x n x outputs`.
        labels: `B x n x outputs` in [0, 1].
    """
    if task.loss == "cross_entropy":
        return -(labels * logits.log_softmax(2)).sum(2).mean(1)
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean((1, 2))


def probabilities(labels: Tensor, task: Task) -> Tensor:
    """Return labels as `n x outputs` in [0, 1]; given are `n` int64 classes, or entries in [0, 1]."""
    if task.kind == "multiclass" and labels.dtype == torch.int64:
        return F.one_hot(labels, task.outputs).float()
    return labels.float().reshape(len(labels), task.outputs)
