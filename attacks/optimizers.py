"""The optimizers of gradient matching, each a generator of the iterates it passes through.

An optimizer changes its variables in place and yields one `Iterate` per outer step; whoever consumes it may
stop at any yield. Only the variables receive gradients.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from attacks.catalog import LBFGS_EVALUATIONS

SNAPSHOTS = 30
"""Of a restart that takes all its iterations."""


class Evaluation(NamedTuple):
    """The objective at the variables' current values.

    Attributes:
        total: What is minimised, a scalar with its graph.
        terms: Its terms by name, unweighted.
    """

    total: Tensor
    terms: Mapping[str, Tensor]


class Iterate(NamedTuple):
    """A point the optimizer passed through.

    Attributes:
        total: The objective there.
        terms: Its terms.
        values: The variables there.
    """

    total: float
    terms: Mapping[str, Tensor]
    values: tuple[Tensor, ...]


Objective = Callable[[], Evaluation]


@dataclass(frozen=True)
class Lbfgs:
    """L-BFGS as in torch: step 1, 20 inner iterations, history 100, no line search.

    Source: Zhu et al. 2019, arXiv 1906.08935, section 4.1 and its reference implementation.

    Attributes:
        iterations: Outer steps at most.
        solved: Ends below this value of the objective.
        patience: Ends after so many outer steps without a value lower by a thousandth.
    """

    iterations: int
    solved: float
    patience: int

    @property
    def stride(self) -> int:
        """Iterates between two snapshots."""
        return max(1, self.iterations // SNAPSHOTS)

    def run(
        self,
        variables: Sequence[Tensor],
        objective: Objective,
        allowance: float,
        noise: torch.Generator | None = None,
    ) -> Iterator[Iterate]:
        """Minimise `objective` in `variables` with at most `allowance` evaluations; it takes no noise."""
        optimizer = torch.optim.LBFGS(variables, lr=1, max_iter=LBFGS_EVALUATIONS, history_size=100)
        seen: list[Evaluation] = []

        def closure() -> float:
            evaluation = _differentiate(objective, variables)
            seen.append(evaluation)
            return float(evaluation.total)

        best, since = math.inf, 0
        for _ in range(self.iterations):
            if allowance < 2:  # the fewest that one step takes
                return
            optimizer.param_groups[0]["max_eval"] = allowance
            values = _copies(variables)
            seen.clear()
            optimizer.step(closure)  # type: ignore[no-untyped-call]
            allowance -= len(seen)
            total = float(seen[0].total)
            yield Iterate(total, seen[0].terms, values)
            since = 0 if total < best * 0.999 else since + 1
            best = min(best, total)
            if total < self.solved or since >= self.patience or not math.isfinite(total):
                return


@dataclass(frozen=True)
class Descent(ABC):
    """Steps along the gradient or its sign, in a box, with a step size that falls.

    Source: Geiping et al. 2020, arXiv 2003.14053, section 4 and its reference implementation; warm-up, cosine
    and jitter: Yin et al. 2021, arXiv 2104.07586, section 3.4 and the code of Hatamizadeh et al. 2023.

    Attributes:
        iterations: Steps.
        lr: Step size.
        signed: Whether the first variable's gradient is replaced by its sign.
        decay: Whether the step falls tenfold at 3/8, 5/8 and 7/8 of the iterations.
        box: Smallest and largest values of the first variable (broadcast), or None.
        warmup: Iterations in which the step grows from lr / warmup to lr.
        cosine: Whether after these the step falls to 0 along half a cosine wave.
        jitter: Standard deviation, in steps, of normal noise on the first variable after every step.
        betas: Adam's decay rates.
    """

    iterations: int
    lr: float
    signed: bool
    decay: bool
    box: tuple[Tensor, Tensor] | None
    warmup: int = 0
    cosine: bool = False
    jitter: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    solved = 0.0

    @property
    def stride(self) -> int:
        """Iterates between two snapshots."""
        return max(1, self.iterations // SNAPSHOTS)

    def rate(self, iteration: int, iterations: int) -> float:
        """Return the step size of an iteration, from 0, of so many."""
        if iteration < self.warmup:
            return self.lr * (iteration + 1) / self.warmup
        rate = self.lr
        if self.cosine:
            share = (iteration - self.warmup) / max(iterations - self.warmup, 1)
            rate = self.lr * (1 + math.cos(math.pi * share)) / 2
        if self.decay:
            rate *= 0.1 ** sum(int(iterations // share) <= iteration for share in (2.667, 1.6, 1.142))
        return rate

    @abstractmethod
    def rule(self, variables: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return torch's optimizer that takes the steps."""

    def run(
        self,
        variables: Sequence[Tensor],
        objective: Objective,
        allowance: float,
        noise: torch.Generator | None = None,
    ) -> Iterator[Iterate]:
        """Minimise `objective` in `variables` with at most `allowance` evaluations, jitter from `noise`."""
        optimizer = self.rule(variables)
        images = variables[0]
        iterations = int(min(self.iterations, allowance))
        for iteration in range(iterations):
            values = _copies(variables)
            evaluation = _differentiate(objective, variables)
            if self.signed and images.grad is not None:
                images.grad = images.grad.sign()
            rate = self.rate(iteration, iterations)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
            with torch.no_grad():
                if self.jitter:
                    images.add_(jittered(images, noise), alpha=rate * self.jitter)
                if self.box is not None:
                    images.clamp_(*self.box)
            yield Iterate(float(evaluation.total), evaluation.terms, values)


class Adam(Descent):
    """Adam, with torch's epsilon."""

    def rule(self, variables: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(variables, lr=self.lr, betas=self.betas)


class Sgd(Descent):
    """Plain gradient descent, without momentum, as in linev8k/invert-gradients-cxr."""

    def rule(self, variables: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return gradient descent."""
        return torch.optim.SGD(variables, lr=self.lr)


def jittered(like: Tensor, noise: torch.Generator | None) -> Tensor:
    """Return noise from N(0, 1) of a tensor's shape, drawn on the CPU."""
    return torch.randn(like.shape, generator=noise).to(like)


def _differentiate(objective: Objective, variables: Sequence[Tensor]) -> Evaluation:
    """Evaluate, and put the derivative with respect to the variables, and nothing else, in their `grad`."""
    evaluation = objective()
    gradients = torch.autograd.grad(evaluation.total, variables)
    for variable, gradient in zip(variables, gradients, strict=True):
        variable.grad = gradient
    return evaluation._replace(total=evaluation.total.detach())


def _copies(variables: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(variable.detach().clone() for variable in variables)
