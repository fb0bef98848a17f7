"""How many reconstructions an evaluator takes for their target class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fl.errors import NotApplicableError
from harness.metrics.cards_inversion import CHOICES

if TYPE_CHECKING:
    from torch import Tensor

    from harness.metrics.inversion import Inversion


def attack_top1(inversion: Inversion) -> float:
    """Return the share of reconstructions that the evaluator takes for their target class."""
    return float(hits(inversion).double().mean())


def attack_top5(inversion: Inversion) -> float:
    """Return the share of reconstructions whose target class is among the evaluator's first five.

    Raises:
        NotApplicableError: If there are no more classes than that.
    """
    probabilities, labels = inversion.made.probabilities, inversion.made.labels
    classes = probabilities.shape[1]
    if classes <= CHOICES:
        raise NotApplicableError(f"of {classes} classes, each is among the first {CHOICES}")
    ahead = (probabilities > probabilities.gather(1, labels[:, None])).sum(1)
    return float(((ahead < CHOICES) & inversion.finite).double().mean())


def hits(inversion: Inversion) -> Tensor:
    """Return which reconstructions the evaluator takes for their target class, `n` bool.

    One that is not finite is taken for none.
    """
    return (inversion.made.named == inversion.made.labels) & inversion.finite
