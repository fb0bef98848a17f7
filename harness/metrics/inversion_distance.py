"""How far reconstructions are from real images of their class, and from each other."""

from __future__ import annotations

import torch
from torch import Tensor

from fl.errors import NotApplicableError
from harness.metrics.inversion import Inversion
from harness.metrics.pairs import euclidean


def knn_distance(inversion: Inversion) -> float:
    """Return the mean squared Euclidean distance of features to the nearest real image of the class."""
    nearest = [
        euclidean(inversion.made.of(label), inversion.real.of(label)).amin(1) for label in inversion.labels
    ]
    return float(torch.cat(nearest).square().mean())


def centre_distance(inversion: Inversion) -> float:
    """Return the mean squared Euclidean distance of features to the mean of real images of the class."""
    distances = [
        (inversion.made.of(label) - inversion.real.of(label).mean(0)).square().sum(1)
        for label in inversion.labels
    ]
    return float(torch.cat(distances).mean())


def pairwise_distance(inversion: Inversion) -> float:
    """Return the distance of two finite reconstructions of one class, mean over its pairs, then classes.

    The distance is the root of the mean squared difference of pixels.

    Raises:
        NotApplicableError: If no class has two.
    """
    usable = inversion.images[inversion.finite], inversion.made.labels[inversion.finite]
    found = [_spread(usable[0][usable[1] == label]) for label in inversion.labels]
    spreads = [spread for spread in found if spread is not None]
    if not spreads:
        raise NotApplicableError("no class has two finite reconstructions")
    return sum(spreads) / len(spreads)


def _spread(images: Tensor) -> float | None:
    if len(images) < 2:
        return None
    distances = torch.pdist(images.flatten(1).double()) / images[0].numel() ** 0.5
    return float(distances.mean())
