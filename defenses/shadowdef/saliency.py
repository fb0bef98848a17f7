"""Where the classifier looks: Grad-CAM++ of the model received, for the whole batch at once."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from defenses.cards_shadowdef import ShadowDefConfig
from fl.cam import grad_cam_pp
from fl.specs import Task


def saliency(
    model: nn.Module, inputs: Tensor, labels: Tensor, *, config: ShadowDefConfig, task: Task, round_: int
) -> Tensor:
    """Return class activation maps, `n x H x W` in [0, 1].

    Args:
        model: The model received, in evaluation mode; left as it is.
        inputs: The clean batch, `n x C x H x W`, normalised.
        labels: Its labels.
        config: Whose class is explained.
        task: Decides what a label is.
        round_: The round.
    """
    with torch.no_grad():
        logits = model(inputs)
    classes = explained(logits, labels, config=config, task=task)
    if round_ == 0 and config.has("train_mode_cam"):
        model = _by_batch_statistics(model)
        alone = range(len(inputs))
        return torch.cat([grad_cam_pp(model, inputs[[i]], classes[[i]]) for i in alone])
    return grad_cam_pp(model, inputs, classes)


def explained(logits: Tensor, labels: Tensor, *, config: ShadowDefConfig, task: Task) -> Tensor:
    """Return whose logit is explained, `n` int64.

    The true class of an image is its most probable one where labels are soft, and of several positive labels
    the one with the highest logit; without any it is the predicted one.

    Args:
        logits: `n x outputs`.
        labels: `n` int64, or `n x outputs` float.
        config: Whose class is explained.
        task: Decides what a label is.
    """
    if config.has("class_one_cam"):
        return torch.ones(len(logits), dtype=torch.long, device=logits.device)
    if task.kind == "binary":
        return ((labels.reshape(-1) > 0.5) if config.cam_class == "true" else (logits[:, 0] > 0)).long()
    if config.cam_class == "predicted":
        return logits.argmax(1)
    if task.kind == "multilabel":
        positive = labels > 0.5
        hidden = logits.masked_fill(~positive, -torch.inf)
        return torch.where(positive.any(1), hidden.argmax(1), logits.argmax(1))
    return labels if labels.dim() == 1 else labels.argmax(1)


def _by_batch_statistics(model: nn.Module) -> nn.Module:
    """Return a copy whose batch norm uses the batch's statistics, though in evaluation mode."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean = layer.running_var = None
    return model
