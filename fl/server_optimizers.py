"""The server's step on the mean delta: plain, or adaptive with a state that lasts over rounds.

Reddi et al. 2021, arXiv 2003.00295, Algorithm 2, whose notation is kept: D the mean delta, eta `server_lr`,

    m <- beta1 m + (1 - beta1) D
    v <- v + D^2 (FedAdagrad)   or   v <- beta2 v + (1 - beta2) D^2 (FedAdam)
    w <- w + eta m / (sqrt(v) + tau)

entry by entry, from m = 0 and v = tau^2 (the paper asks for at least that), without bias correction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from fl.encoding import prefixed, under
from fl.specs import FederationSpec
from fl.types import Tensors

if TYPE_CHECKING:
    from torch import Tensor

FIRST, SECOND = "m/", "v/"
"""What precedes a parameter's name in the state."""


class ServerStep(NamedTuple):
    """What a step gives: the new weights, and the optimizer's state for the next round."""

    weights: Tensors
    state: Tensors


def descend(spec: FederationSpec, weights: Tensors, gradient: Tensors, *, round_: int) -> Tensors:
    """Return the weights after FedSGD's step down the mean gradient, with the round's learning rate."""
    return _moved(weights, gradient, -spec.lr_at(round_))


def advance(spec: FederationSpec, weights: Tensors, delta: Tensors, state: Tensors) -> ServerStep:
    """Return the step along the mean delta.

    Args:
        spec: Names the algorithm and its options.
        weights: The global weights by name, at least those of `delta`.
        delta: The mean delta; frozen parameters are absent.
        state: The optimizer's state after the last round; empty before the first, and always so for FedAvg
            and FedProx, whose step is w + eta D.
    """
    if spec.algorithm not in ("fedadam", "fedadagrad"):
        return ServerStep(_moved(weights, delta, spec.server_lr), {})
    assert spec.beta1 is not None
    assert spec.tau is not None
    first, second = under(FIRST, state), under(SECOND, state)
    moved: dict[str, Tensor] = {}
    for name, step in delta.items():
        m = first.get(name, torch.zeros_like(step)) * spec.beta1 + (1 - spec.beta1) * step
        v = second.get(name, torch.full_like(step, spec.tau**2))
        v = v + step.square() if spec.beta2 is None else v * spec.beta2 + (1 - spec.beta2) * step.square()
        moved[name] = weights[name] + spec.server_lr * m / (v.sqrt() + spec.tau)
        first[name], second[name] = m, v
    return ServerStep(moved, {**prefixed(FIRST, first), **prefixed(SECOND, second)})


def _moved(weights: Tensors, direction: Tensors, step: float) -> Tensors:
    return {name: torch.add(weights[name], tensor, alpha=step) for name, tensor in direction.items()}
