"""What a reconstruction shows of an image beyond what public data show of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.metrics.image import ssim, ssim_map
from harness.metrics.pairs import Pairs, require


class Prior:
    """The mean public image, and how similar it is to the private images of one trial."""

    def __init__(self, mean: Tensor) -> None:
        """Take the mean public image, `C x H x W` in [0, 1]."""
        self._mean = mean
        self._known: dict[str, Tensor] = {}

    def ssim(self, images: Tensor, image_ids: tuple[str, ...]) -> Tensor:
        """Return the SSIM of each of `k x C x H x W` images with the mean, `k`, computed once per id."""
        unknown = [index for index, name in enumerate(image_ids) if name not in self._known]
        if unknown:
            found = ssim_map(images[unknown], self._mean.expand_as(images[unknown])).flatten(1).mean(1)
            self._known.update(zip((image_ids[index] for index in unknown), found, strict=True))
        return torch.stack([self._known[name] for name in image_ids])


def rdlv(pairs: Pairs) -> Tensor:
    """Return the relative data leakage value (SSIM(x, rec) - SSIM(x, prior)) / SSIM(x, prior), `k`.

    0: no more similar to x than the mean public image. NaN where that image's similarity is not positive.
    Source: Hatamizadeh et al. 2023, arXiv 2202.06924.

    Raises:
        NotApplicableError: If there are no public images.
    """
    prior = require(pairs.instruments.prior).ssim(pairs.truth, pairs.image_ids)
    defined = prior > 0
    return torch.where(defined, (ssim(pairs) - prior) / torch.where(defined, prior, 1.0), math.nan)
