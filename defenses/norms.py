"""Sizes of updates: norms over all tensors, and what one unit of the gradient is in an update."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fl.hooks import ClientContext
from fl.types import Observation, Tensors


def gradient_unit(context: ClientContext) -> float:
    """Return how long a gradient of length 1 is in the update this client sends.

    It is lr x local steps for a weight delta: the length of the path that plain SGD would take along a
    constant gradient. A gradient's is that of one step of learning rate 1.
    """
    return context.lr * context.local_steps


def observed_gradient_unit(observation: Observation) -> float:
    """Return `gradient_unit` as the adversary knows it.

    A gradient inferred from two checkpoints is a delta divided by its reach (`fl.parameter_difference`),
    which momentum makes longer than the path of plain SGD. The unit is 1 where the adversary does not know
    the local training: it then takes a gradient for the update, whose direction alone is right
    (`attacks.problem`).
    """
    local = observation.knowledge.local_training
    if local is None:
        return 1.0
    path = local.lr * local.steps
    return path / local.reach if observation.update.kind == "gradient" else path


def global_norm(tensors: Tensors) -> Tensor:
    """Return the L2 norm over all entries of all tensors, a scalar; its derivative at 0 is 0."""
    norms = [torch.linalg.vector_norm(tensor) for tensor in tensors.values()]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm


def root_mean_square(tensors: Tensors) -> Tensor:
    """Return the root mean square over all entries of all tensors, a scalar."""
    entries = sum(tensor.numel() for tensor in tensors.values())
    return global_norm(tensors) / math.sqrt(entries)
