"""Reconstructions beside the private images they were matched with, and what measures them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from torch import Tensor

from fl.errors import NotApplicableError
from harness.metrics.recent import Recent

if TYPE_CHECKING:
    from harness.metrics.regions import Regions
    from harness.metrics.relative import Prior

InstrumentT = TypeVar("InstrumentT")
BLOCK = 8
"""Images embedded at once. A block is always full, so a vector's bits do not depend on its companions."""
EMBEDDED_BYTES = 2**20
"""Vectors that an embedding remembers, unless it is told otherwise."""


def euclidean(images: Tensor, others: Tensor) -> Tensor:
    """Return the distance of each of `n x C x H x W` to each of `m x C x H x W`, `n x m`: 0 if equal."""
    return torch.cdist(images.flatten(1), others.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")


class Unavailable(NamedTuple):
    """Something that cannot be had, and why: its metrics are null with this reason."""

    reason: str


NO_REGIONS = Unavailable("no sensitive regions are known")
NO_PRIOR = Unavailable("there are no public images")


def on_request(metric: str) -> Unavailable:
    """Return why a metric that is measured on request has no value where nobody asked."""
    return Unavailable(f"{metric} is measured on request: `metrics: [{metric}]` in the matrix")


NO_VGG = on_request("lpips_vgg")


class Embedding:
    """Maps images to vectors in full blocks and remembers the images that it saw last."""

    def __init__(
        self, embed: Callable[[Tensor], Tensor], *, block: int = BLOCK, max_bytes: int = EMBEDDED_BYTES
    ) -> None:
        """Say how to embed and what to remember.

        Args:
            embed: `block x C x H x W` float32 in [0, 1] to `block x d` on the CPU.
            block: Images embedded at once.
            max_bytes: Size of all vectors that are remembered.
        """
        self._embed = embed
        self._block = block
        self._known: Recent[bytes, Tensor] = Recent(max_bytes)

    def __call__(self, images: Tensor) -> Tensor:
        """Return `n x d` float64 for `n x C x H x W` in [0, 1], n >= 1."""
        keys = [blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images]
        found = {key: known for key in keys if (known := self._known.get(key)) is not None}
        unknown = {key: image for key, image in zip(keys, images, strict=True) if key not in found}
        for start in range(0, len(unknown), self._block):
            names = list(unknown)[start : start + self._block]
            block = torch.zeros(self._block, *images.shape[1:])
            block[: len(names)] = torch.stack([unknown[name] for name in names])
            for name, row in zip(names, self._embed(block), strict=False):
                found[name] = row.clone()  # a view would keep its whole block
                self._known.put(name, found[name], n_bytes=row.nbytes)
        return torch.stack([found[key] for key in keys]).double()


class Lpips(NamedTuple):
    """LPIPS as embeddings: the squared distance of two vectors is the LPIPS of two images.

    Attributes:
        alex: On AlexNet.
        vgg: On VGG-16.
    """

    alex: Embedding | Unavailable
    vgg: Embedding | Unavailable = NO_VGG


@dataclass(frozen=True)
class Gallery:
    """Private images among which a reconstruction looks for its own.

    Attributes:
        image_ids: Their ids; those of the trial's targets are among them.
        images: `G x C x H x W` in [0, 1].
        clients: Whose they are, None for an image that no client holds; empty where that is not known.
    """

    image_ids: tuple[str, ...]
    images: Tensor
    clients: tuple[int | None, ...] = ()

    def distances(self, images: Tensor) -> Tensor:
        """Return the Euclidean distance of each of `k x C x H x W` to each image of the gallery, `k x G`."""
        return euclidean(images.double(), self.images.double())

    def find(self, image_ids: Sequence[str]) -> Tensor:
        """Return the images' positions in the gallery, `k` int64; -1 for those that are not in it."""
        return torch.tensor([self._positions.get(image_id, -1) for image_id in image_ids])

    @cached_property
    def holders(self) -> Tensor:
        """Whose the images are, `G` int64; -1 where no client holds one."""
        return torch.tensor([-1 if client is None else client for client in self.clients])

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {image_id: index for index, image_id in enumerate(self.image_ids)}


@dataclass(frozen=True)
class Instruments:
    """What metrics need besides the images.

    Attributes:
        perceptual: LPIPS as an embedding: the squared distance of two vectors is the LPIPS of two images.
        features: The observed model's penultimate features.
        gallery: The gallery.
        regions: The private images' sensitive regions.
        prior: What public data show of the private images.
        perceptual_vgg: LPIPS on VGG-16 instead of AlexNet.
        asked: Metrics that are measured on request, and were asked for.
    """

    perceptual: Embedding | Unavailable
    features: Embedding | Unavailable
    gallery: Gallery | Unavailable
    regions: Regions | Unavailable = NO_REGIONS
    prior: Prior | Unavailable = NO_PRIOR
    perceptual_vgg: Embedding | Unavailable = NO_VGG
    asked: frozenset[str] = frozenset()

    @cached_property
    def gallery_directions(self) -> Tensor:
        """The gallery's features, each of length 1, `G x d` (0 where they vanish).

        Raises:
            NotApplicableError: If there is no gallery, or the observed model offers no features.
        """
        return directions(require(self.features)(require(self.gallery).images))


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
    def ssim_map(self) -> Tensor:
        """The structural similarity of every window (`image.ssim_map`)."""
        from harness.metrics.image import ssim_map

        return ssim_map(self.truth, self.guess)

    @cached_property
    def lpips(self) -> Tensor:
        """The perceptual distance of each pair on AlexNet's features, `k`.

        Raises:
            NotApplicableError: If it cannot be had.
        """
        from harness.metrics.perceptual import distance

        return distance(require(self.instruments.perceptual), self.truth, self.guess)

    @cached_property
    def guess_features(self) -> Tensor:
        """The observed model's features of the guesses, `k x d`.

        Raises:
            NotApplicableError: If it offers none.
        """
        return require(self.instruments.features)(self.guess)

    @cached_property
    def gallery_similarity(self) -> Tensor:
        """The cosine between each guess's features and those of each image of the gallery, `k x G`.

        Raises:
            NotApplicableError: If there is no gallery, or the observed model offers no features.
        """
        return directions(self.guess_features) @ self.instruments.gallery_directions.T

    @cached_property
    def aligned(self) -> Pairs:
        """The same pairs after each guess's best circular shift and mirroring."""
        from harness.metrics.alignment import align

        return Pairs(self.truth, align(self.truth, self.guess), self.image_ids, self.instruments)


def directions(vectors: Tensor) -> Tensor:
    """Return `n x d` vectors at length 1; 0 stays 0."""
    length = vectors.norm(dim=1, keepdim=True)
    return vectors / torch.where(length > 0, length, 1.0)


def require(instrument: InstrumentT | Unavailable) -> InstrumentT:
    """Return the instrument.

    Raises:
        NotApplicableError: If it cannot be had; the message is the reason.
    """
    if isinstance(instrument, Unavailable):
        raise NotApplicableError(instrument.reason)
    return instrument
