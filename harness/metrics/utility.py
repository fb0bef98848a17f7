"""Task performance on clean data, from logits and labels, in float64."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from fl.specs import Task

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Utility:
    """What a model is worth for its task; None where undefined, with the reason.

    Attributes:
        accuracy: Share of right predictions (multilabel: over all images and outputs).
        balanced_accuracy: Mean recall over the classes that occur (multilabel: mean over outputs of it).
        macro_f1: Mean F1 over the classes that occur or are predicted (multilabel: mean over outputs of the
            positive class's F1); 0 for one never predicted rightly.
        auroc: Area under the ROC curve; mean over classes, each against the rest, or over outputs.
        loss: Mean task loss.
        null_reasons: Why values are None, by name.
    """

    accuracy: float | None
    balanced_accuracy: float | None
    macro_f1: float | None
    auroc: float | None
    loss: float | None
    null_reasons: dict[str, str] = field(default_factory=dict)


def utility(logits: Tensor, labels: Tensor, task: Task) -> Utility:
    """Return the utility of predictions: the largest logit, or for sigmoid outputs those above 0.

    A logit that is not finite (a diverged model) makes its prediction wrong, and AUROC and loss undefined.

    Args:
        logits: `N x outputs`.
        labels: `N` classes, or `N` or `N x outputs` 0/1 values (binary, multilabel).
        task: Says which of them.
    """
    if not len(logits):
        names = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "loss")
        return Utility(None, None, None, None, None, dict.fromkeys(names, "no images to test on"))
    scores = logits.detach().cpu().double()
    if task.kind == "multiclass":
        return _multiclass(scores, labels.detach().cpu().long(), task.classes)
    return _sigmoid(scores, labels.detach().cpu().double().reshape(scores.shape), task)


def _multiclass(logits: Tensor, labels: Tensor, classes: int) -> Utility:
    finite = logits.isfinite().all(1)
    predicted = torch.where(finite, logits.argmax(1), -1).numpy()
    truth = labels.numpy()
    occurring = np.unique(truth)
    reported = np.union1d(occurring, predicted[predicted >= 0])
    pairs = [(truth == c, predicted == c) for c in range(classes)]
    loss = F.cross_entropy(logits, labels).item() if finite.all() else None
    areas = [_auroc(truth == c, column) for c, column in enumerate(logits.log_softmax(1).T.numpy())]
    return _with_reasons(
        accuracy=float((predicted == truth).mean()),
        balanced_accuracy=float(np.mean([_recall(*pairs[c]) for c in occurring])),
        macro_f1=float(np.mean([_f1(*pairs[c]) for c in reported])),
        areas=areas if finite.all() else None,
        loss=loss,
    )


def _sigmoid(logits: Tensor, labels: Tensor, task: Task) -> Utility:
    finite = logits.isfinite()
    truth = labels.numpy() > 0.5
    predicted = np.where(finite.numpy(), logits.numpy() > 0, ~truth)
    outputs = list(zip(truth.T, predicted.T, strict=True))
    if task.kind == "binary":
        f1 = [_f1(t == c, p == c) for t, p in outputs for c in np.union1d(t, p)]
    else:
        f1 = [_f1(t, p) for t, p in outputs]
    loss = F.binary_cross_entropy_with_logits(logits, labels).item() if finite.all() else None
    areas = [_auroc(t, column) for t, column in zip(truth.T, logits.numpy().T, strict=True)]
    return _with_reasons(
        accuracy=float((predicted == truth).mean()),
        balanced_accuracy=float(np.mean([_balanced(t, p) for t, p in outputs])),
        macro_f1=float(np.mean(f1)),
        areas=areas if finite.all() else None,
        loss=loss,
    )


def _with_reasons(
    *,
    accuracy: float,
    balanced_accuracy: float,
    macro_f1: float,
    areas: list[float | None] | None,
    loss: float | None,
) -> Utility:
    reasons = {}
    auroc = None
    if areas is None:
        reasons = dict.fromkeys(("auroc", "loss"), "the model's outputs are not all finite")
    else:
        defined = [area for area in areas if area is not None]
        if len(defined) == len(areas):
            auroc = float(np.mean(defined))
        else:
            lacking = len(areas) - len(defined)
            reasons["auroc"] = f"{lacking} of {len(areas)} outputs lack positive or negative images"
    return Utility(accuracy, balanced_accuracy, macro_f1, auroc, loss, reasons)


def _recall(truth: Flags, predicted: Flags) -> float:
    return float(predicted[truth].mean())


def _balanced(truth: Flags, predicted: Flags) -> float:
    return float(np.mean([_recall(truth == c, predicted == c) for c in np.unique(truth)]))


def _f1(truth: Flags, predicted: Flags) -> float:
    size = int(truth.sum() + predicted.sum())
    return 2.0 * int((truth & predicted).sum()) / size if size else 0.0


def _auroc(truth: Flags, scores: NDArray[np.float64]) -> float | None:
    """Return the share of (positive, negative) pairs in the right order, ties counting half."""
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        return None
    ranks = rankdata(scores)[truth].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * negative))
