"""Reconstructions beside the private images they were matched with, and what measures them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from fl.errors import NotApplicableError

BLOCK = 8
"""Images embedded at once. A block is always full, so a vector's bits do not depend on its companions."""


def euclidean(images: Tensor, others: Tensor) -> Tensor:
    """Return the distance of each of `n x C x H x W` to each of `m x C x H x W`, `n x m`: 0 if equal."""
    return torch.cdist(images.flatten(1), others.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")


class Unavailable(NamedTuple):
    """Something that cannot be had, and why: its metrics are null with this reason."""

    reason: str


class Embedding:
    """Maps images to vectors in full blocks and remembers every image it has seen.

    It lives as long as the scoring of one trial, where a private image is compared with several guesses.
    """

    def __init__(self, embed: Callable[[Tensor], Tensor]) -> None:
        """Take `embed`: `BLOCK x C x H x W` float32 in [0, 1] to `BLOCK x d` on the CPU."""
        self._embed = embed
        self._known: dict[bytes, Tensor] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return `n x d` float64 for `n x C x H x W` in [0, 1]."""
        keys = [image.numpy().tobytes() for image in images]
        unknown = {key: image for key, image in zip(keys, images, strict=True) if key not in self._known}
        for start in range(0, len(unknown), BLOCK):
            names = list(unknown)[start : start + BLOCK]
            block = torch.zeros(BLOCK, *images.shape[1:])
            block[: len(names)] = torch.stack([unknown[name] for name in names])
            self._known.update(zip(names, self._embed(block), strict=False))
        return torch.stack([self._known[key] for key in keys]).double()


@dataclass(frozen=True)
class Gallery:
    """Private images among which a reconstruction looks for its own.

    Attributes:
        image_ids: Their ids; those of the trial's targets are among them.
        images: `G x C x H x W` in [0, 1].
    """

    image_ids: tuple[str, ...]
    images: Tensor

    def distances(self, images: Tensor) -> Tensor:
        """Return the Euclidean distance of each of `k x C x H x W` to each image of the gallery, `k x G`."""
        return euclidean(images.double(), self._double)

    @cached_property
    def _double(self) -> Tensor:
        return self.images.double()


@dataclass(frozen=True)
class Instruments:
    """What metrics need besides the images.

    Attributes:
        perceptual: LPIPS as an embedding: the squared distance of two vectors is the LPIPS of two images.
        features: The observed model's penultimate features.
        gallery: The gallery.
    """

    perceptual: Embedding | Unavailable
    features: Embedding | Unavailable
    gallery: Gallery | Unavailable


@dataclass(frozen=True)
class Pairs:
    """Private images and the finite reconstruction matched with each.

    Attributes:
        truth: `k x C x H x W` float32 in [0, 1].
        guess: `k x C x H x W` float32 in [0, 1].
        image_ids: Ids of the k private images.
        instruments: What else metrics need.
    """

    truth: Tensor
    guess: Tensor
    image_ids: tuple[str, ...]
    instruments: Instruments

    @cached_property
    def aligned(self) -> Pairs:
        """The same pairs after each guess's best circular shift and mirroring."""
        from harness.metrics.alignment import align

        return Pairs(self.truth, align(self.truth, self.guess), self.image_ids, self.instruments)


def require(instrument: Embedding | Unavailable) -> Embedding:
    """Return the instrument.

    Raises:
        NotApplicableError: If it cannot be had; the message is the reason.
    """
    if isinstance(instrument, Unavailable):
        raise NotApplicableError(instrument.reason)
    return instrument
