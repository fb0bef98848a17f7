"""Images as functions of what a search moves: latent vectors, a generator's features, or its weights.

A search holds rows, one per lane, and asks for the images that rows stand for and for what a slope in the
images is in the rows. Every row is padded with zeros to a whole cache line (`CACHE_LINE`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.func import functional_call
from torch.nn import functional as F

from attacks.l1_ball import projected
from attacks.objectives import TINY

if TYPE_CHECKING:
    from torch import Tensor

    from fl.generators.architecture import Generator

CACHE_LINE = 16
"""Single-precision numbers in 64 bytes."""


class Drawn(NamedTuple):
    """What rows stand for.

    Attributes:
        images: `B x n x C x H x W` in [0, 1], without a graph.
        pull: From the slope of a total in the images, of their shape, to its slope in the rows, `B x D`; to
            be called at most once.
        norm: The mean Euclidean norm of a row's latent vectors, `B`, where it is part of the total: `pull`
            then adds its slope.
    """

    images: Tensor
    pull: Callable[[Tensor], Tensor]
    norm: Tensor | None


class Parametrisation(ABC):
    """From rows to images.

    Attributes:
        weight: Of the norm of latent vectors in the total.
    """

    weight = 0.0

    @abstractmethod
    def draw(self, rows: Tensor) -> Drawn:
        """Return what `B x D` rows stand for."""

    def confined(self, rows: Tensor) -> Tensor:
        """Return rows taken back to where they may be; the same object where that is anywhere."""
        return rows


class Latents(Parametrisation):
    """A row is the latent vectors of n images; the generator's weights are everyone's.

    Args:
        generator: In eval mode, without gradients.
        images: n.
        weight: Of the vectors' mean Euclidean norm.
        labels: `B x n` int64 or `B x n x classes`, of a generator that draws by class; they stay.
    """

    def __init__(
        self, generator: Generator, images: int, *, weight: float = 0.0, labels: Tensor | None = None
    ) -> None:
        self._generator = generator
        self._images = images
        self._labels = None if labels is None else labels.flatten(0, 1)
        self.weight = weight

    def rows(self, latents: Tensor) -> Tensor:
        """Return rows for latent vectors, `B x n x latent`."""
        return _padded(latents.flatten(1))

    def latents(self, rows: Tensor) -> Tensor:
        """Return the latent vectors of rows, `B x n x latent`."""
        used = self._images * self._generator.latent
        return rows[:, :used].reshape(len(rows), self._images, -1)

    def draw(self, rows: Tensor) -> Drawn:
        """Return what rows stand for."""
        vectors = self.latents(rows.detach()).flatten(0, 1).contiguous().requires_grad_()
        with torch.enable_grad():
            images = _by_row(self._generator(vectors, self._labels), self._images)
        lengths = (vectors.detach().square().sum(1) + TINY).sqrt()

        def pull(slopes: Tensor) -> Tensor:
            (found,) = torch.autograd.grad(images, vectors, slopes)
            found = found + self.weight / self._images * vectors.detach() / lengths.unsqueeze(1)
            return _padded(found.view(len(rows), -1))

        norm = lengths.view(-1, self._images).mean(1) if self.weight else None
        return Drawn(images.detach(), pull, norm)


class Features(Parametrisation):
    """A row is what enters a block of the synthesis, of n images; it stays in an l1 ball around its start.

    Args:
        generator: In eval mode, without gradients.
        block: Its number; that of the last one plus 1 is the layer that makes images.
        first: `B x n x ...`, the balls' centres.
        styles: `(B n) x style`.
        radius: Of each image's ball.
    """

    def __init__(
        self, generator: Generator, block: int, first: Tensor, styles: Tensor, *, radius: float
    ) -> None:
        self._synthesis = generator.synthesis
        self._block = block
        self._first = first
        self._styles = styles
        self._radius = radius

    def rows(self) -> Tensor:
        """Return the rows of the centres, `B x D`."""
        return _padded(self._first.flatten(1))

    def features(self, rows: Tensor) -> Tensor:
        """Return the features of rows, `B x n x ...`."""
        return rows[:, : self._first[0].numel()].reshape(self._first.shape)

    def draw(self, rows: Tensor) -> Drawn:
        """Return what rows stand for."""
        features = self.features(rows.detach()).flatten(0, 1).contiguous().requires_grad_()
        with torch.enable_grad():
            found = self._synthesis.after(features, self._block, self._styles)
            images = _by_row(found, self._first.shape[1])

        def pull(slopes: Tensor) -> Tensor:
            (found,) = torch.autograd.grad(images, features, slopes)
            return _padded(found.reshape(len(rows), -1))

        return Drawn(images.detach(), pull, None)

    def confined(self, rows: Tensor) -> Tensor:
        """Return rows with each image's features projected onto its ball."""
        offsets = (self.features(rows) - self._first).flatten(0, 1).flatten(1)
        near = projected(offsets, self._radius).view_as(self._first) + self._first
        return _padded(near.flatten(1))


class Weights(Parametrisation):
    """A row is the weights of n copies of the synthesis, one per image; what enters it stays.

    Args:
        generator: In eval mode, without gradients.
        latents: `B x n x latent`.
        labels: As `Latents` takes them.
    """

    def __init__(self, generator: Generator, latents: Tensor, labels: Tensor | None = None) -> None:
        self._synthesis = generator.synthesis
        self._images = latents.shape[1]
        self._styles = styles_of(generator, latents, labels)
        self._shapes = {name: p.shape for name, p in self._synthesis.named_parameters()}

    def rows(self) -> Tensor:
        """Return the rows of the generator as it is, `B x D`."""
        one = torch.cat([parameter.detach().flatten() for parameter in self._synthesis.parameters()])
        lanes = len(self._styles) // self._images
        return _padded(one.repeat(lanes, self._images))

    def draw(self, rows: Tensor) -> Drawn:
        """Return what rows stand for."""
        weights = self._split(rows.detach())
        leaves = {name: weight.contiguous().requires_grad_() for name, weight in weights.items()}

        def one(own: dict[str, Tensor], styles: Tensor) -> Tensor:
            image: Tensor = functional_call(self._synthesis, own, (styles.unsqueeze(0),))
            return image.squeeze(0)

        with torch.enable_grad():
            images = _by_row(torch.vmap(one)(leaves, self._styles), self._images)

        def pull(slopes: Tensor) -> Tensor:
            found = torch.autograd.grad(images, list(leaves.values()), slopes)
            flat = torch.cat([slope.flatten(1) for slope in found], 1)
            return _padded(flat.view(len(rows), -1))

        return Drawn(images.detach(), pull, None)

    def _split(self, rows: Tensor) -> dict[str, Tensor]:
        """Return each parameter of every copy, `(B n) x ...`."""
        sizes = [shape.numel() for shape in self._shapes.values()]
        flat = rows[:, : self._images * sum(sizes)].reshape(len(self._styles), -1)
        parts = flat.split_with_sizes(sizes, 1)
        return {
            name: part.reshape(-1, *shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }


def styles_of(generator: Generator, latents: Tensor, labels: Tensor | None) -> Tensor:
    """Return the style vectors, `(B n) x style`, of `B x n x latent` and labels as `Latents` takes them."""
    with torch.no_grad():
        return generator.styles(latents.flatten(0, 1), None if labels is None else labels.flatten(0, 1))


def _by_row(images: Tensor, each: int) -> Tensor:
    return images.view(-1, each, *images.shape[1:])


def _padded(rows: Tensor) -> Tensor:
    return F.pad(rows, (0, -rows.shape[1] % CACHE_LINE))
