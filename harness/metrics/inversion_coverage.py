"""How much reconstructions and real images overlap, by the balls around an evaluator's features.

The ball of an image reaches to the k-th nearest image of its own set. Classes are not told apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.metrics.inversion import ROWS, Inversion
from harness.metrics.pairs import euclidean


def precision(inversion: Inversion) -> float:
    """Return the share of reconstructions that lie in the ball of a real image.

    Raises:
        NotApplicableError: If there are fewer than two images on either side.
    """
    return _share(_reaching(inversion) > 0)


def recall(inversion: Inversion) -> float:
    """Return the share of real images that lie in the ball of a reconstruction.

    Raises:
        NotApplicableError: If there are fewer than two images on either side.
    """
    reach = inversion.made.reach(inversion.neighbours)
    return _share(torch.cat([(some <= reach).any(1) for some in _distances(inversion)]))


def density(inversion: Inversion) -> float:
    """Return how many real images' balls hold a reconstruction, mean over reconstructions, divided by k.

    Raises:
        NotApplicableError: If there are fewer than two images on either side.
    """
    return float(_reaching(inversion).double().mean()) / inversion.neighbours


def coverage(inversion: Inversion) -> float:
    """Return the share of real images whose ball holds a reconstruction.

    Raises:
        NotApplicableError: If there are fewer than two images on either side.
    """
    reach = inversion.real.reach(inversion.neighbours)
    nearest = torch.cat([some.amin(1) for some in _distances(inversion)])
    return _share(nearest <= reach)


def _reaching(inversion: Inversion) -> Tensor:
    """Return how many real images' balls each reconstruction lies in, `n`."""
    reach = torch.split(inversion.real.reach(inversion.neighbours), ROWS)
    chunks = zip(_distances(inversion), reach, strict=True)
    return torch.stack([(some <= radii[:, None]).sum(0) for some, radii in chunks]).sum(0)


def _distances(inversion: Inversion) -> Iterator[Tensor]:
    """Yield the distances of real images to all reconstructions, some rows at a time."""
    for rows in torch.split(inversion.real.features, ROWS):
        yield euclidean(rows, inversion.made.features)


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())
