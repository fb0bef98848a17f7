"""Reading labels from the gradient of the head, before any optimisation.

For logits z = W h + b and softmax cross-entropy, dL/dz_c = p_c - 1[c = y], dL/db_c = dL/dz_c and
dL/dW_c = dL/dz_c h. For sigmoid cross-entropy averaged over K outputs, dL/dz_c = (sigmoid(z_c) - y_c) / K.
The gradient of a batch of n images is the mean of theirs. The head is found as the module that the model
names as its head, never by the position of a tensor.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fl.errors import NotApplicableError
from fl.specs import Task
from fl.types import Tensors


class HeadGradient(NamedTuple):
    """The gradient of the head; None for what it does not have or does not share.

    Attributes:
        weight: `outputs x features`.
        bias: `outputs`.
    """

    weight: Tensor | None
    bias: Tensor | None


class Expected(NamedTuple):
    """What the attacker expects of the private images, from images of its own.

    Attributes:
        probabilities: `outputs`, mean softmax or sigmoid.
        feature_sum: Scalar, mean over images of the sum of the head's input.
        non_negative: Whether no entry of the head's input was negative.
    """

    probabilities: Tensor
    feature_sum: Tensor
    non_negative: bool


def head_gradient(model: nn.Module, gradients: Tensors) -> HeadGradient:
    """Return the part of `gradients` that belongs to `model.head`.

    Raises:
        NotApplicableError: If the head's gradient was not shared.
    """
    head = model.get_submodule("head")
    name = next(name for name, module in model.named_modules() if module is head)
    found = HeadGradient(gradients.get(f"{name}.weight"), gradients.get(f"{name}.bias"))
    if found.weight is None and found.bias is None:
        raise NotApplicableError(
            f"labels are read from the gradient of {name!r}, which was not shared; "
            "grant them (knowledge.labels: known) or use dlg, which optimises labels"
        )
    return found


def expect(model: nn.Module, inputs: Tensor, task: Task) -> Expected:
    """Run the model on the attacker's own normalised images, `N x C x H x W`."""
    captured: list[Tensor] = []
    head = model.get_submodule("head")
    handle = head.register_forward_pre_hook(lambda module, args: captured.append(args[0].detach()))
    try:
        with torch.no_grad():
            logits = model(inputs)
    finally:
        handle.remove()
    probabilities = logits.softmax(1) if task.kind == "multiclass" else logits.sigmoid()
    features = captured[0]
    return Expected(probabilities.mean(0), features.sum(1).mean(), bool(features.min() >= 0))


def infer(
    head: HeadGradient, task: Task, n: int, expected: Expected, *, through_noise: bool = False
) -> Tensor:
    """Return the labels of n images: `n` int64, sorted, or `n x outputs` of 0 and 1.

    The bias is preferred; without one, row sums of the weight divided by the expected feature sum stand for
    it. In a batch only counts per class can be read: sigmoid labels are dealt to the first images.

    Args:
        head: The gradient of the head.
        task: Decides what labels are.
        n: Images.
        expected: What the attacker expects of them.
        through_noise: Prefer row sums where features are never negative: noise on every entry adds up to less
            than the features do (Li et al. 2022, arXiv 2203.15696, their code).

    Raises:
        NotApplicableError: If there is no bias and features can be negative.
    """
    sums_preferred = through_noise and head.weight is not None and expected.non_negative
    if head.bias is not None and not sums_preferred:
        evidence = head.bias
    else:
        assert head.weight is not None
        if not expected.non_negative:
            raise NotApplicableError(
                "expected a head with a bias, or features that are never negative, to read labels from; got "
                "neither; grant labels (knowledge.labels: known) or use dlg"
            )
        evidence = head.weight.sum(1) / expected.feature_sum
    if task.kind != "multiclass":
        return _deal(positive_counts(evidence, n, expected.probabilities), n)
    if n == 1:
        return bias_rule(evidence)
    counts = class_counts(evidence, n, expected.probabilities)
    return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)


def bias_rule(bias: Tensor) -> Tensor:
    """Return the label of one image (`1` int64) from the head's bias gradient (`classes`).

    The only negative entry belongs to the label. Source: Zhao et al. 2020, arXiv 2001.02610, section 3.2,
    stated there for weights.
    """
    return bias.argmin().view(1)


def weight_rule(weight: Tensor) -> Tensor:
    """Return the label of one image (`1` int64) from the head's weight gradient (`classes x features`).

    The smallest row sum; valid only where the features' sum is positive. Source: the reference implementation
    of Geiping et al. 2020, after Zhao et al. 2020, arXiv 2001.02610, section 3.2.
    """
    return weight.sum(1).argmin().view(1)


def class_counts(bias: Tensor, n: int, probabilities: Tensor) -> Tensor:
    """Return how many of n images have each label (`classes` int64).

    In the head's bias gradient (`classes`), n dL/db_c = sum_i p_ic - count_c. A negative entry proves its
    class present; the rest of the n labels go one by one to the class whose count falls furthest short of
    n (p_c - dL/db_c), with the expected probabilities for p. Source: the two steps of Wainakh et al. 2022
    (LLG, arXiv 2105.09369) with the bias in place of weight sums, where one label's impact is exactly -1/n.
    """
    order = bias.argsort(stable=True)
    present = order[:n][bias[order[:n]] < 0]
    counts = torch.zeros_like(bias, dtype=torch.int64).index_fill(0, present, 1)
    shortfall = n * (probabilities - bias)
    for _ in range(n - len(present)):
        counts[(shortfall - counts).argmax()] += 1
    return counts


def positive_counts(bias: Tensor, n: int, probabilities: Tensor) -> Tensor:
    """Return how many of n images are positive for each output (`outputs` int64).

    n K dL/db_c = sum_i sigmoid(z_ic) - count_c. For one image the sign decides (y = 1 exactly where the entry
    is negative); for several the expected probabilities stand for the sigmoids.
    """
    if n == 1:
        return bias.lt(0).long()
    return (n * (probabilities - len(bias) * bias)).round().clamp(0, n).long()


def _deal(counts: Tensor, n: int) -> Tensor:
    """Give label 1 of each output to the first `counts` images: `n x outputs` float."""
    return torch.arange(n, device=counts.device).unsqueeze(1).lt(counts).float()
