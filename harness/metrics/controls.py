"""What a reconstruction is compared with: guesses that know nothing, constants, other targets' secrets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np

RANDOM_GUESS = "random_guess"
MEAN_IMAGE = "mean_image"


def random_guess(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return uniform noise in [0, 1] of the shape `n x C x H x W` of `like`."""
    return torch.rand(like.shape, generator=generator)


def mean_image(like: Tensor, mean: Tensor) -> Tensor:
    """Return the public mean image (`C x H x W`) once for each of the n images of `like`."""
    return mean.expand_as(like)


def oracle_constant(truth: Tensor) -> Tensor:
    """Return for each image (`n x C x H x W`) the constant image with the least error: its channel means."""
    return truth.mean((-2, -1), keepdim=True).expand_as(truth)


def derangement(classes: Sequence[Hashable], generator: np.random.Generator) -> tuple[int, ...]:
    """Return, for each of N >= 2 targets, another target to be scored against; no two share one.

    As many as possible get a target of their own class. Each class is dealt out around a circle; targets
    alone in their class share a circle, and a single one joins that of another class.
    """
    assert len(classes) > 1
    members = defaultdict(list)
    for index in generator.permutation(len(classes)):
        members[classes[index]].append(int(index))
    circles = [group for group in members.values() if len(group) > 1]
    alone = [group[0] for group in members.values() if len(group) == 1]
    if len(alone) == 1:
        circles[int(generator.integers(len(circles)))].extend(alone)
    elif alone:
        circles.append(alone)
    partner = {
        index: after for circle in circles for index, after in zip(circle, _turned(circle), strict=True)
    }
    return tuple(partner[index] for index in range(len(classes)))


def _turned(circle: list[int]) -> list[int]:
    return [*circle[1:], circle[0]]
