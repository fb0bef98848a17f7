"""Gradients inferred from two checkpoints: the model that was sent and the model that came back.

Whoever runs, or looks into, a federated-learning platform often has files of weights and no gradients. One
SGD step from w gives w' = w - lr g, so g = -(w' - w) / lr; several steps give about the mean of their
gradients after division by lr x steps. Checkpoints are float32, so what can be inferred carries their
rounding error, of the order of eps |w| / (lr |g|). Differences are taken in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fl.types import Tensors, Update

if TYPE_CHECKING:
    from torch import Tensor


def returned_model(sent: Tensors, update: Update, *, lr: float) -> dict[str, Tensor]:
    """Return the model that a client gives back, in float32: parameters and buffers, frozen ones as sent.

    Args:
        sent: Parameters and buffers of the model sent.
        update: What the client sends.
        lr: Step size down a gradient; a delta is simply added.
    """
    step = -lr if update.kind == "gradient" else 1.0
    moved = {
        name: torch.add(sent[name], tensor.to(sent[name].dtype), alpha=step)
        for name, tensor in update.tensors.items()
    }
    return {**sent, **moved, **update.buffers}


def infer_gradient(sent: Tensors, returned: Tensors, *, reach: float) -> dict[str, Tensor]:
    """Return -(returned - sent) / reach of every parameter in `returned`, in float32 and without -0.0.

    Args:
        sent: The model sent, by parameter name.
        returned: What came back, by the names of those parameters that were trained.
        reach: How far local training moves the weights along a constant gradient of length 1
            (`fl.types.LocalTraining.reach`); 1 where it is unknown and only the direction counts.
    """
    return {
        name: ((sent[name].double() - tensor.double()) / reach + 0.0).float()
        for name, tensor in returned.items()
    }
