"""How good a generator's images are: how far they are, as a set, from real ones that it never saw."""

from __future__ import annotations

import torch
from torch import Tensor

DIRECTIONS = 256
SETS = 8
"""Sets of samples, and at most as many of real images, that a distance is averaged over."""

FEWEST = 8
"""Images of a label below which its set says nothing."""


def sliced_wasserstein(first: Tensor, second: Tensor, stream: torch.Generator) -> float:
    """Return the sliced Wasserstein distance of order 2 between two sets of as many images.

    Both sets are projected onto random directions of unit length; on a line the distance is that between
    sorted values. Source: Bonneel et al. 2015 (Journal of Mathematical Imaging and Vision 51), section 3.

    Args:
        first: `n x C x H x W`.
        second: `n x C x H x W`.
        stream: Draws the directions.
    """
    entries = first[0].numel()
    directions = torch.randn(entries, DIRECTIONS, generator=stream).to(first)
    directions = directions / directions.norm(dim=0)
    lines = [(images.flatten(1) @ directions).sort(dim=0).values for images in (first, second)]
    return float((lines[0] - lines[1]).square().mean().sqrt())


def distances(samples: Tensor, seen: Tensor, held_out: Tensor, stream: torch.Generator) -> dict[str, float]:
    """Return how far sets of images are from held-out ones, all sets as large as those.

    Args:
        samples: Generated images, at least `SETS` times as many as are held out.
        seen: The images that were trained on.
        held_out: h images that were not, no more than `seen`.
        stream: Draws which of the seen images form a set, and directions.

    Returns:
        `generated`: of samples; `real`: of seen images, which a perfect generator would come close to;
        `mean_image`: of h copies of the mean of the seen images. Means over sets.
    """
    size = len(held_out)
    order = torch.randperm(len(seen), generator=stream)
    real = [seen[order[i : i + size]] for i in range(0, min(len(seen), SETS * size) - size + 1, size)]
    generated = [samples[i * size : (i + 1) * size] for i in range(SETS)]
    constant = seen.mean(0, keepdim=True).expand_as(held_out)
    sets = {"generated": generated, "real": real, "mean_image": [constant]}
    return {
        name: sum(sliced_wasserstein(images, held_out, stream) for images in group) / len(group)
        for name, group in sets.items()
    }


def by_class(samples: Tensor, images: Tensor, labels: Tensor, stream: torch.Generator) -> dict[str, float]:
    """Return how far images drawn by a label are from real ones with that label, and from all others.

    Args:
        samples: `N x C x H x W`, drawn by the images' labels, in their order.
        images: `N x C x H x W`, real.
        labels: `N` int64, or `N x outputs`.
        stream: Draws which of the others form a set as large, and directions.

    Returns:
        `own_class` and `other_classes`, means over the images; nothing unless at least two labels have
        `FEWEST` images and as many others. A generator whose labels tell nothing has them about equal.
    """
    groups = torch.unique(labels, dim=0, return_inverse=True)[1]
    sizes, own, others = [], [], []
    for group in groups.unique().tolist():
        members, rest = (groups == group).nonzero().squeeze(1), (groups != group).nonzero().squeeze(1)
        size = min(len(members), len(rest))
        if size < FEWEST:
            continue
        chosen = members[torch.randperm(len(members), generator=stream)[:size]]
        strangers = rest[torch.randperm(len(rest), generator=stream)[:size]]
        sizes.append(len(members))
        own.append(sliced_wasserstein(samples[chosen], images[chosen], stream))
        others.append(sliced_wasserstein(samples[chosen], images[strangers], stream))
    if len(sizes) < 2:
        return {}
    weights = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
    means = {"own_class": own, "other_classes": others}
    return {name: float(weights @ torch.tensor(found, dtype=torch.float64)) for name, found in means.items()}
