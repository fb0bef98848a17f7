"""What gradient matching adds to its distance, with rows of lanes; each is `attacks.regularisers`' by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import torch

from attacks.objectives import TINY

if TYPE_CHECKING:
    from torch import Tensor

    from attacks.engine.objective import ObjectiveSpec, Target
    from attacks.regularisers import VariationName
    from fl.batch_norm import Moments


class Term(NamedTuple):
    """A term of the objective.

    Attributes:
        weight: Of each lane, `B`.
        rows: Its value, `B`.
    """

    weight: Tensor
    rows: Tensor


class LaneRegularisers:
    """Terms on lanes' images and on what batch norms take in.

    Args:
        spec: What lanes share.
        lanes: B.
        like: Decides dtype and device.
    """

    def __init__(self, spec: ObjectiveSpec, lanes: int, like: Tensor) -> None:
        self._spec = spec
        self._lanes = lanes
        self._variation, self._norm, self._batch_norm, self._group = (like.new_zeros(lanes) for _ in range(4))
        self._group_weights = [0.0] * lanes
        self._means = like.new_zeros(lanes, spec.images, *spec.shape) if spec.grouped else None
        self._statistics: dict[str, tuple[Tensor, ...]] = {}

    def load(self, lane: int, target: Target) -> None:
        """Give a lane its weights and statistics; restarts have no mean yet."""
        self._variation[lane] = target.total_variation
        self._norm[lane] = target.image_norm
        self._batch_norm[lane] = target.batch_norm
        self._group[lane] = 0.0
        self._group_weights[lane] = target.group
        for name in self._spec.watched:
            moments = target.statistics[name]
            if name not in self._statistics:
                self._statistics[name] = tuple(self._norm.new_zeros(self._lanes, len(m)) for m in moments)
            for rows, values in zip(self._statistics[name], moments, strict=True):
                rows[lane] = values

    def gather(self, lane: int, mean: Tensor) -> None:
        """Draw a lane to the mean of its task's restarts, `n x C x H x W` or flat."""
        assert self._means is not None
        self._means[lane] = mean.view(self._means.shape[1:])
        self._group[lane] = self._group_weights[lane]

    def terms(self, inputs: Tensor, moments: Mapping[str, Moments]) -> dict[str, Term]:
        """Return the terms by name.

        Args:
            inputs: `B x n x C x H x W`.
            moments: By batch norm, `B x C` each.
        """
        spec = self._spec
        found: dict[str, Term] = {}
        if spec.varied:
            found["total_variation"] = Term(self._variation, VARIATIONS[spec.variation](inputs))
        if spec.normed:
            found["image_norm"] = Term(self._norm, _image_norms(inputs))
        if spec.watched:
            norms = [
                _norms(mine - theirs)
                for name in spec.watched
                for mine, theirs in zip(moments[name], self._statistics[name], strict=True)
            ]
            found["batch_norm"] = Term(self._batch_norm, reduce(torch.add, norms))
        if self._means is not None:
            found["group"] = Term(self._group, _image_norms(inputs - self._means))
        return found


def _anisotropic(images: Tensor) -> Tensor:
    horizontal = (images[..., :, 1:] - images[..., :, :-1]).abs().mean((1, 2, 3, 4))
    vertical = (images[..., 1:, :] - images[..., :-1, :]).abs().mean((1, 2, 3, 4))
    return horizontal + vertical


def _frobenius(images: Tensor) -> Tensor:
    steps = (
        images[..., :, 1:] - images[..., :, :-1],
        images[..., 1:, :] - images[..., :-1, :],
        images[..., 1:, 1:] - images[..., :-1, :-1],
        images[..., 1:, :-1] - images[..., :-1, 1:],
    )
    return reduce(torch.add, (_norms(step) for step in steps))


def _image_norms(images: Tensor) -> Tensor:
    return (images.flatten(2).square().sum(2) + TINY).sqrt().mean(1)


def _norms(rows: Tensor) -> Tensor:
    return (rows.square().flatten(1).sum(1) + TINY).sqrt()


VARIATIONS: Mapping[VariationName, Callable[[Tensor], Tensor]] = {
    "anisotropic": _anisotropic,
    "frobenius": _frobenius,
}
