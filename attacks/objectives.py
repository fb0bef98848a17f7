"""What gradient matching minimises: costs between gradients by tensor name, and priors on images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from fl.types import Tensors

Cost = Callable[[Tensors, Tensors], Tensor]

TINY = 1e-30
"""Added to squared norms: far below any gradient's, and it keeps the cosine of a zero gradient finite."""


def l2(dummy: Tensors, observed: Tensors) -> Tensor:
    """Return the squared Euclidean distance over all observed tensors, a scalar.

    Source: Zhu et al. 2019, arXiv 1906.08935, equation 4.
    """
    return torch.stack([(dummy[name] - tensor).square().sum() for name, tensor in observed.items()]).sum()


def cosine(dummy: Tensors, observed: Tensors) -> Tensor:
    """Return 1 - cos, one cosine over all observed tensors as a single vector, a scalar in [0, 2].

    A zero gradient has cosine 0 with everything. Source: Geiping et al. 2020, arXiv 2003.14053, equation 4.
    """
    dot = torch.stack([(dummy[name] * tensor).sum() for name, tensor in observed.items()]).sum()
    dummy_norm = (squared_norm({name: dummy[name] for name in observed}) + TINY).sqrt()
    return 1 - dot / (dummy_norm * (squared_norm(observed) + TINY).sqrt())


def squared_norm(tensors: Tensors) -> Tensor:
    """Return the sum of squares over all tensors, a scalar."""
    return torch.stack([tensor.square().sum() for tensor in tensors.values()]).sum()


def total_variation(images: Tensor) -> Tensor:
    """Return the anisotropic total variation of `n x C x H x W`: mean horizontal plus mean vertical step.

    Source: the reference implementation of Geiping et al. 2020 (means, not sums, over batch and channels).
    """
    horizontal = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    vertical = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    return horizontal + vertical


COSTS: Mapping[Literal["cosine", "l2"], Cost] = {"cosine": cosine, "l2": l2}
