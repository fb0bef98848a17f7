"""FedInverse's term for diversity: how much one half of the generated images depends on the other."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.inversion.config import DiversityConfig
from fl.dependence import kernel_matrix, released_coco, released_hsic


def diversity(features: Tensor, labels: Tensor, config: DiversityConfig) -> Tensor:
    """Return H of a batch, a scalar, in [0, h - 1] for hsic and halves of h images; not weighted.

    With b images, h = floor(b / 2), the first half x_1..x_h, and the second half x_h+1..x_2h (of an odd
    number the last image takes no part), H is the dependence between the halves, image i paired with image
    h + i. Fewer than four images have an H of 0.

    Source: the released code of Wu et al. 2024 (FedInverse, ICLR), where it is `BATCHHSIC` or `BATCHCOCO`.

    Args:
        features: `b x ...`, images or what they are compared by, label by label; flattened.
        labels: `b` int64.
        config: The measure, and what halves are taken of.
    """
    flat = features.flatten(1)
    if config.split == "halves":
        return _of_halves(flat, config)
    of_labels = [_of_halves(flat[labels == label], config) for label in sorted(set(labels.tolist()))]
    return torch.stack(of_labels).mean()


def _of_halves(flat: Tensor, config: DiversityConfig) -> Tensor:
    h = len(flat) // 2
    if h < 2:  # what is constant over the half depends on nothing
        return (0 * flat).sum()
    first = kernel_matrix(flat[:h], config.kernel, config.sigma)
    second = kernel_matrix(flat[h : 2 * h], "gaussian", config.sigma)
    if config.measure == "coco":
        return released_coco(second, first).to(flat.dtype)
    return released_hsic(second, first, config.epsilon).to(flat.dtype)
