"""The five terms that the shadow generator is tuned by."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.cards_shadowdef import ShadowDefConfig
from defenses.shadowdef.rehearsal import Trace


def objective(config: ShadowDefConfig, inputs: Tensor, truth: Tensor, trace: Trace, goal: Trace) -> Tensor:
    """Return the weighted sum, a scalar.

    Args:
        config: The weights.
        inputs: The shadow's images in the model's input space, `n x C x H x W`.
        truth: The client's images, likewise.
        trace: What the shadow's images leave behind.
        goal: What the client's do.
    """
    pixels = inputs.shape[2] * inputs.shape[3]
    loss: Tensor = (
        config.gradient_weight * gradient_distance(trace, goal)
        + config.batch_norm_weight * statistics_distance(trace, goal)
        + config.tv_weight * total_variation(inputs)
        + config.l2_weight * torch.linalg.vector_norm(inputs) / pixels**2
        + config.mse_weight * (inputs - truth).square().mean()
    )
    return loss


def gradient_distance(trace: Trace, goal: Trace) -> Tensor:
    """Return the sum over parameters of the Euclidean distance of their gradients."""
    pairs = zip(trace.gradients, goal.gradients, strict=True)
    return torch.stack([torch.linalg.vector_norm(ours - theirs) for ours, theirs in pairs]).sum()


def statistics_distance(trace: Trace, goal: Trace) -> Tensor:
    """Return the sum over batch-norm layers of the distances of means and of variances; 0 without any."""
    pairs = list(zip(trace.statistics, goal.statistics, strict=True))
    if not pairs:
        return trace.gradients[0].new_zeros(())
    means = [torch.linalg.vector_norm(ours.mean - theirs.mean) for ours, theirs in pairs]
    variances = [torch.linalg.vector_norm(ours.variance - theirs.variance) for ours, theirs in pairs]
    return torch.stack(means + variances).sum()


def total_variation(images: Tensor) -> Tensor:
    """Return the sum of four Frobenius norms over a batch: of differences along rows, columns, diagonals."""
    differences = (
        images[..., :, :-1] - images[..., :, 1:],
        images[..., :-1, :] - images[..., 1:, :],
        images[..., 1:, :-1] - images[..., :-1, 1:],
        images[..., :-1, :-1] - images[..., 1:, 1:],
    )
    return torch.stack([torch.linalg.vector_norm(difference) for difference in differences]).sum()
