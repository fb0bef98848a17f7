"""Random search: the floor of every other optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from attacks.latent.base import LatentSearch

if TYPE_CHECKING:
    from torch import Tensor


class RandomSearch(LatentSearch):
    """Points from N(0, 1), whatever they were worth.

    Args:
        dimension: D.
        population: Points at a time.
        stream: Of the draws.
    """

    def __init__(self, dimension: int, population: int, stream: torch.Generator) -> None:
        self._shape = (population, dimension)
        self._stream = stream

    def ask(self) -> Tensor:
        """Return new points."""
        return torch.randn(self._shape, generator=self._stream)

    def tell(self, values: Tensor, slopes: Tensor | None = None) -> None:
        """Learn nothing."""
