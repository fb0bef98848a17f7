"""A loaded data set: four disjoint parts of labelled images. Importing this does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from fl.cards import PARTS, DataInfo
from fl.errors import DataUnavailableError, UsageError

if TYPE_CHECKING:
    from torch import Tensor


UNLABELLED = -1
"""The label of an image that is of none of the task's classes, as a public part may hold."""


@dataclass(frozen=True)
class Part:
    """One part of a data set.

    Attributes:
        ids: A name per image, unique in the data set.
        labels: `N` int64 (`UNLABELLED` where no class fits), or `N x outputs` float (binary, multilabel).
        groups: The patient or source of each image, where known.
        read: From positions (at least one) to images, `n x C x H x W` float32 in [0, 1].
        read_regions: From positions to sensitive regions, `n x 1 x H x W` bool; None if none are marked.
    """

    ids: tuple[str, ...]
    labels: Tensor
    groups: tuple[str, ...] | None
    read: Callable[[Sequence[int]], Tensor] = field(repr=False, compare=False)
    read_regions: Callable[[Sequence[int]], Tensor] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def images(self, indices: Sequence[int] | None = None) -> Tensor:
        """Return images by position, in the order asked for, or all.

        Returns:
            `n x C x H x W` float32 in [0, 1].
        """
        return self.read(range(len(self)) if indices is None else indices)

    def regions(self, indices: Sequence[int] | None = None) -> Tensor | None:
        """Return the sensitive regions (such as tumours) of images by position, or of all.

        Returns:
            `n x 1 x H x W` bool, in the geometry of `images`; all False where an image has none. None if the
            data set marks no regions (`DataInfo.regions`).
        """
        if self.read_regions is None:
            return None
        return self.read_regions(range(len(self)) if indices is None else indices)

    def positions(self, ids: Iterable[str]) -> list[int]:
        """Return where the images with these ids are.

        Raises:
            DataUnavailableError: If an id is not in this part.
        """
        wanted = list(ids)
        unknown = [name for name in wanted if name not in self._position]
        if unknown:
            raise DataUnavailableError(
                f"expected image {unknown[0]!r} in this part of the data set, got {len(self)} images without "
                "it; the images changed since it was recorded"
            )
        return [self._position[name] for name in wanted]

    @cached_property
    def _position(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.ids)}


@dataclass(frozen=True)
class Dataset:
    """A loaded data set.

    Attributes:
        info: What its card's `describe` says about it.
        parts: The parts by name, one for each of `fl.cards.PARTS`.
    """

    info: DataInfo
    parts: Mapping[str, Part]

    def part(self, name: str) -> Part:
        """Return a part.

        Raises:
            UsageError: If there is no part of that name.
        """
        if name not in self.parts:
            raise UsageError(f"expected one of the parts {', '.join(PARTS)}, got {name!r}")
        return self.parts[name]


@dataclass(frozen=True)
class PublicImages:
    """The attacker's own images (`fl.types.PublicData`).

    Attributes:
        images: `N x C x H x W` float32 in [0, 1].
        labels: `N` int64, or `N x outputs` float.
    """

    images: Tensor
    labels: Tensor

    @cached_property
    def mean_image(self) -> Tensor:
        """`C x H x W`, the mean of `images`."""
        return self.images.mean(dim=0)


def public_data(dataset: Dataset) -> PublicImages:
    """Return the public part as an attacker holds it.

    Raises:
        UsageError: If the public part is empty.
    """
    part = dataset.part("public")
    if not len(part):
        raise UsageError(
            "expected a public part for the attacker, got a data set without one; name another with public:"
        )
    return PublicImages(part.images(), part.labels)
