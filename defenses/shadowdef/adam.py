"""Adam on a few tensors that are left alone: `torch.optim` takes seconds to start, in every new process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class Adam:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2).

    Args:
        lr: Step size; may be changed between steps.
        weight_decay: Share of the step size by which values shrink at each step.

    Attributes:
        lr: As given.
    """

    def __init__(self, lr: float, weight_decay: float = 0.0) -> None:
        self.lr = lr
        self._weight_decay = weight_decay
        self._moments: list[tuple[Tensor, Tensor]] = []
        self._steps = 0

    def step(self, values: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return the next values; the moments are those of the same list in earlier calls."""
        if not self._moments:
            self._moments = [(torch.zeros_like(value), torch.zeros_like(value)) for value in values]
        self._steps += 1
        groups = zip(values, gradients, self._moments, strict=True)
        with torch.no_grad():
            return [self._next(value, gradient, *moments) for value, gradient, moments in groups]

    def _next(self, value: Tensor, gradient: Tensor, first: Tensor, second: Tensor) -> Tensor:
        beta1, beta2 = _BETAS
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = (second / (1 - beta2**self._steps)).sqrt_().add_(_EPSILON)
        shrunk = value.detach() * (1 - self.lr * self._weight_decay)
        return shrunk.addcdiv_(first, scale, value=-self.lr / (1 - beta1**self._steps))
