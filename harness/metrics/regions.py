"""Pixel metrics inside and outside the part of an image that matters: a lesion, or what the model looks at.

Every mean is over the pixels of the part in question, never over all pixels, so that a small part does not
make errors look small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fl.cam import grad_cam
from fl.errors import NotApplicableError
from harness.metrics.cards_region import REGION_SHARE, RegionSource
from harness.metrics.image import SSIM_WINDOW, to_psnr_db
from harness.metrics.labels import Label
from harness.metrics.pairs import Pairs, Unavailable, require

if TYPE_CHECKING:
    from torch import nn

    from fl.data.base import Part
    from fl.types import ImageSpec

CAM_BATCH = 16
"""Images explained at once."""


@dataclass(frozen=True)
class Regions:
    """The sensitive regions of a trial's private images.

    Attributes:
        source: Who says where they are.
        masks: By image id, `H x W` bool; all false where an image has none.
    """

    source: RegionSource
    masks: Mapping[str, Tensor]

    def of(self, image_ids: Sequence[str]) -> Tensor:
        """Return the masks of the images, `k x H x W`."""
        return torch.stack([self.masks[image_id] for image_id in image_ids])

    @property
    def share(self) -> float:
        """Mean share of an image's pixels that lie in its region."""
        return float(self.of(tuple(self.masks)).double().mean())


class Labelled(NamedTuple):
    """A private image, `C x H x W` in [0, 1], and its label."""

    image: Tensor
    label: Label


def find_regions(
    part: Part, labelled: Mapping[str, Labelled], model: nn.Module, image: ImageSpec
) -> Regions | Unavailable:
    """Return where images are sensitive: as the data set marks them, else where the model sees their class.

    Args:
        part: The data set's private part.
        labelled: Private images by id.
        model: The observed model.
        image: Normalises what it takes.
    """
    source: RegionSource = "grad_cam" if part.read_regions is None else "data_set"
    if not labelled:
        return Regions(source, {})
    marked = part.regions(part.positions(tuple(labelled)))
    if marked is None:
        images = torch.stack([one.image for one in labelled.values()])
        try:
            marked = salient(model, image, images, [one.label for one in labelled.values()])[:, None]
        except NotApplicableError as error:
            return Unavailable(str(error))
    return Regions(source, dict(zip(labelled, marked[:, 0], strict=True)))


def salient(model: nn.Module, image: ImageSpec, images: Tensor, labels: Sequence[Label]) -> Tensor:
    """Return where a model sees the true class, `n x H x W` bool on the CPU.

    A region holds the `REGION_SHARE` of pixels at which Grad-CAM of the true class's logit on the normalised
    image is largest, of ties the first in reading order, and none at which it is 0. Of several labels the
    first counts; an image without one has no region.

    Args:
        model: The observed model.
        image: Normalises what it takes.
        images: `n x C x H x W` in [0, 1].
        labels: The n labels.

    Raises:
        NotApplicableError: If the model has no layer with a spatial output.
    """
    device = next(model.parameters()).device
    classes = [_first_class(label) for label in labels]
    maps = []
    for start in range(0, len(images), CAM_BATCH):
        batch = slice(start, start + CAM_BATCH)
        inputs = image.normalise(images[batch].to(device))
        explained = torch.tensor([max(one, 0) for one in classes[batch]], device=device)
        maps.append(grad_cam(model, inputs, explained).cpu())
    named = torch.tensor([one >= 0 for one in classes], dtype=torch.bool)
    return _top(torch.cat(maps)) & named.view(-1, 1, 1)


def _first_class(label: Label) -> int:
    if isinstance(label, int):
        return label
    return label.index(1) if 1 in label else -1


def _top(maps: Tensor) -> Tensor:
    values = maps.flatten(1)
    chosen = values.argsort(stable=True, dim=1, descending=True)[:, : round(REGION_SHARE * values.shape[1])]
    mask = torch.zeros_like(values, dtype=torch.bool).scatter_(1, chosen, True)
    return (mask & (values > 0)).view_as(maps)


def region_mse(pairs: Pairs) -> Tensor:
    """Return the mean squared error inside the region, `k`; NaN where there is none.

    Raises:
        NotApplicableError: If no regions are known; so do the other metrics here.
    """
    return _error(pairs, _inside(pairs))


def region_psnr_db(pairs: Pairs) -> Tensor:
    """Return the PSNR of `region_mse`, `k`."""
    return to_psnr_db(region_mse(pairs))


def region_ssim(pairs: Pairs) -> Tensor:
    """Return the mean SSIM of the windows centred inside the region, `k`; NaN where there are none."""
    return _similarity(pairs, _inside(pairs))


def outside_mse(pairs: Pairs) -> Tensor:
    """Return the mean squared error outside the region, `k`; NaN where the image has none."""
    return _error(pairs, _outside(pairs))


def outside_psnr_db(pairs: Pairs) -> Tensor:
    """Return the PSNR of `outside_mse`, `k`."""
    return to_psnr_db(outside_mse(pairs))


def outside_ssim(pairs: Pairs) -> Tensor:
    """Return the mean SSIM of the windows centred outside the region, `k`; NaN where the image has none."""
    return _similarity(pairs, _outside(pairs))


def _inside(pairs: Pairs) -> Tensor:
    return require(pairs.instruments.regions).of(pairs.image_ids)


def _outside(pairs: Pairs) -> Tensor:
    """Return the rest of each image; nothing of an image without a region."""
    inside = _inside(pairs)
    return ~inside & inside.flatten(1).any(1).view(-1, 1, 1)


def _error(pairs: Pairs, mask: Tensor) -> Tensor:
    return _mean_over((pairs.truth.double() - pairs.guess.double()).square().mean(1), mask)


def _similarity(pairs: Pairs, mask: Tensor) -> Tensor:
    """Average SSIM over windows by their centres, of which the image's edge has none."""
    similarity, edge = pairs.ssim_map.mean(1), SSIM_WINDOW // 2
    size = [side + 2 * edge for side in similarity.shape[-2:]]
    enlarged = F.interpolate(mask[:, None].float(), size=size, mode="nearest")[:, 0].bool()
    return _mean_over(similarity, enlarged[:, edge:-edge, edge:-edge])


def _mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `k x H x W` values where the mask is set, `k`; NaN where it never is."""
    area = mask.flatten(1).sum(1)
    total = (values * mask).flatten(1).sum(1)
    return torch.where(area > 0, total / area.clamp_min(1), math.nan)
