"""k-IIP: whether a reconstruction gives away which client's images lie behind it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fl.errors import NotApplicableError
from harness.metrics.pairs import Pairs, require

DIGITS = 9
"""Cosines that agree to so many decimals are a tie."""


def iip_1(pairs: Pairs) -> Tensor:
    """Return k-IIP for k = 1 (`iip`)."""
    return iip(pairs, 1)


def iip_3(pairs: Pairs) -> Tensor:
    """Return k-IIP for k = 3 (`iip`)."""
    return iip(pairs, 3)


def iip_5(pairs: Pairs) -> Tensor:
    """Return k-IIP for k = 5 (`iip`)."""
    return iip(pairs, 5)


def iip(pairs: Pairs, k: int) -> Tensor:
    """Return, for each pair, the share of the guess's k nearest gallery images that are its client's own.

    Near is what has a large cosine between the observed model's penultimate features. Of images that tie for
    the last places, each takes its part of them, which is what drawing lots would give on average. NaN where
    the private image is not in the gallery, features are not finite, or the gallery has fewer than k images.

    Raises:
        NotApplicableError: If there is no gallery, it is not known whose its images are, or the observed
            model offers no features.
    """
    gallery = require(pairs.instruments.gallery)
    if not gallery.clients:
        raise NotApplicableError("it is not known which client holds which image of the gallery")
    holders, own = gallery.holders, gallery.find(pairs.image_ids)
    mine = torch.where(own >= 0, holders[own.clamp_min(0)], -1)
    cosines = pairs.gallery_similarity.round(decimals=DIGITS)
    defined = (mine >= 0) & cosines.isfinite().all(1)
    if len(holders) < k:
        return torch.full((len(mine),), math.nan, dtype=torch.float64)
    return torch.where(defined, _share(cosines, mine[:, None] == holders, k), math.nan)


def _share(cosines: Tensor, own: Tensor, k: int) -> Tensor:
    last = cosines.topk(k, 1).values[:, -1:]
    nearer, tied = cosines > last, cosines == last
    left = k - nearer.sum(1)
    return ((own & nearer).sum(1) + left * (own & tied).sum(1) / tied.sum(1)) / k
