"""Whether a reconstruction gives away whose image it is, among a gallery of private images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.metrics.pairs import Pairs, require

if TYPE_CHECKING:
    import numpy as np

GALLERY_SIZE = 100


def draw_gallery(
    private: Sequence[str], targets: Iterable[str], generator: np.random.Generator
) -> tuple[str, ...]:
    """Return the ids of the gallery: all images attacked, filled up to `GALLERY_SIZE` with others.

    Args:
        private: Ids of all clients' images.
        targets: Ids of the images behind the trial's targets.
        generator: Decides who fills up; the seed's own, so that trials of a seed meet the same strangers.
    """
    attacked = set(targets)
    order = generator.permutation(len(private))
    strangers = [name for name in (private[i] for i in order) if name not in attacked]
    return tuple(sorted([*attacked, *strangers[: max(GALLERY_SIZE - len(attacked), 0)]]))


def identification_top1(pairs: Pairs) -> Tensor:
    """Return, for each guess, whether its own private image is the nearest of the gallery, `k`.

    Near is what has a small mean squared error of pixels. If t images are equally near, the private one among
    them, the value is 1 / t: what picking one of them at random would give. NaN where the private image is
    not in the gallery.

    Raises:
        NotApplicableError: If there is no gallery.
    """
    gallery = require(pairs.instruments.gallery)
    distances, own = gallery.distances(pairs.guess), gallery.find(pairs.image_ids)
    nearest = distances == distances.amin(1, keepdim=True)
    hits = nearest.gather(1, own.clamp_min(0)[:, None])[:, 0] / nearest.sum(1).double()
    return torch.where(own >= 0, hits, math.nan)
