"""CMA-ES, by the `cma` package of its authors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cma
import numpy as np
import torch

from attacks.latent.base import LatentSearch

if TYPE_CHECKING:
    from torch import Tensor

QUIET = {"verbose": -9, "verb_log": 0, "verb_disp": 0, "signals_filename": ""}
"""No output, no files, no options from a file."""


class CmaEs(LatentSearch):
    """Evolution of a normal distribution that begins as N(0, 1), as latent vectors are distributed.

    Source: Hansen 2016, The CMA Evolution Strategy, arXiv 1604.00772. It never ends by itself.

    Args:
        dimension: D, at least 2.
        population: Points per generation, at least 2.
        stream: Of the draws; numpy's global generator is left alone.
    """

    def __init__(self, dimension: int, population: int, stream: np.random.Generator) -> None:
        def draw(*shape: int) -> np.ndarray:
            return stream.standard_normal(shape)

        options = {"popsize": population, "seed": np.nan, "randn": draw, **QUIET}
        self._strategy = cma.CMAEvolutionStrategy(np.zeros(dimension), 1.0, options)
        self._points: list[np.ndarray] = []

    def ask(self) -> Tensor:
        """Return a generation."""
        self._points = self._strategy.ask()
        return torch.tensor(np.stack(self._points), dtype=torch.float32)

    def tell(self, values: Tensor, slopes: Tensor | None = None) -> None:
        """Move the distribution to the better half."""
        self._strategy.tell(self._points, values.double().tolist())
