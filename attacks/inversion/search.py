"""The way from first latent vectors to images, alike for attacks that search for all labels together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from attacks.base import Reconstruction, TaskFailure
from attacks.inversion.groups import Group
from attacks.optimizers import SNAPSHOTS

if TYPE_CHECKING:
    from torch import Tensor


class Evaluated(NamedTuple):
    """The objective at one point of a search for n labels.

    Attributes:
        images: `n x samples x C x H x W` in [0, 1], without a graph.
        terms: By name and unweighted, each `n`, or a scalar that all labels share; `total`, `n`, is what is
            minimised.
    """

    images: Tensor
    terms: Mapping[str, Tensor]


def search(
    group: Group[Any],
    iterations: int,
    *,
    step: Callable[[], Evaluated],
    last: Callable[[], Evaluated],
    evaluations_each: int = 1,
) -> list[Reconstruction] | list[TaskFailure]:
    """Take steps, and answer with where they lead.

    Args:
        group: The trial's tasks.
        iterations: Steps.
        step: Takes one; returns what was there before it.
        last: Returns what the answer is made of.
        evaluations_each: Gradient evaluations of a step.

    Returns:
        An answer to every task; failures if the search was told to stop.
    """
    stride = max(1, iterations // SNAPSHOTS)
    best = torch.full((len(group.tasks),), torch.inf, device=group.device)
    for iteration in range(iterations):
        if group.stopping():
            return group.stopped()
        found = step()
        best = torch.minimum(best, found.terms["total"].detach())
        if iteration % stride == 0:
            group.record(iteration, found.terms, best, found.images)
    with torch.no_grad():
        found = last()
    group.record(iterations, found.terms, torch.minimum(best, found.terms["total"]), found.images)
    return group.reconstructions(
        found.images, found.terms, evaluations=iterations * evaluations_each, iterations=iterations
    )
