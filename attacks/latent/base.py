"""The seam between a search for latent vectors and whoever evaluates them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


class LatentSearch(ABC):
    """A search for the vector with the lowest objective; what it draws comes from the stream it was given.

    Attributes:
        needs_slopes: Whether `tell` wants the objective's slopes.
    """

    needs_slopes: ClassVar[bool] = False

    @abstractmethod
    def ask(self) -> Tensor:
        """Return the next points, `m x D`, on the CPU."""

    @abstractmethod
    def tell(self, values: Tensor, slopes: Tensor | None = None) -> None:
        """Take in what all points of the last `ask` were worth.

        Args:
            values: The objective, `m`, on the CPU; where it was not finite, a value above all others.
            slopes: In the points, `m x D`, where needed; zero where not finite.
        """
