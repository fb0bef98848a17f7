"""How large an evaluator is and how long it is trained; read without torch."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from fl.cards import Work
from fl.models.costs import conv_mflop, linear_mflop

SMALL_SIDE, SMALLEST_MAP = 16, 4
"""Images with a larger side are halved by the first convolution; maps until their side is four at most."""

WIDTH, LARGE_WIDTH, MOST_WIDTH = 16, 24, 256
"""Feature maps after the first convolution, of small and of larger images; they double with each pooling."""

FIRST_KERNEL, KERNEL = 5, 3

FEATURES = 64
"""Entries of the features, which enter the last layer."""

BATCH = 64
EPOCHS = 80
LEAST_STEPS, MOST_STEPS = 300, 4000

TRAINED = 3
"""A training step in forward passes: forward, and a backward of twice its cost."""


class Maps(NamedTuple):
    """Feature maps of one side length: those of the first convolution, then those that are pooled."""

    side: int
    width: int


def maps_for(size: int) -> list[Maps]:
    """Return the network's maps for images with this side, from the largest to the smallest.

    The last ones are what the bottleneck takes; all but the first are convolved before they are pooled.
    """
    found = [Maps(-(-size // 2), LARGE_WIDTH) if size > SMALL_SIDE else Maps(size, WIDTH)]
    while found[-1].side > SMALLEST_MAP:
        found.append(Maps(found[-1].side // 2, min(2 * found[-1].width, MOST_WIDTH)))
    return found


def steps_for(images: int) -> int:
    """Return how many steps a training on so many images takes."""
    return min(max(LEAST_STEPS, -(-EPOCHS * images // BATCH)), MOST_STEPS)


def network_mflop(channels: int, size: int, classes: int) -> float:
    """Return the cost of looking at one image."""
    maps = maps_for(size)
    mflop = conv_mflop(channels, maps[0].width, FIRST_KERNEL, maps[0].side)
    for last, pooled in pairwise(maps):
        mflop += conv_mflop(last.width, pooled.width, KERNEL, last.side)
        mflop += conv_mflop(pooled.width, pooled.width, KERNEL, last.side)
    entries = maps[-1].width * maps[-1].side ** 2
    return mflop + linear_mflop(entries, FEATURES) + linear_mflop(FEATURES, classes)


def training_work(channels: int, size: int, classes: int, *, images: int, tested: int) -> Work:
    """Return what it takes to train an evaluator on so many images, and to test it."""
    steps, each = steps_for(images), network_mflop(channels, size, classes)
    return Work((steps * BATCH * TRAINED + tested) * each, steps)
