"""Named random streams: every draw of a trial is a pure function of its names.

A stream is addressed by the matrix's seed value, a purpose and the entities it belongs to (client, round,
target, restart, ...). Nothing is drawn from a shared generator, so neither order nor batching nor the number
of workers can move a draw. Streams that defenses, budgets and attacks must share (partition, participation,
initial weights, targets, first guesses) simply do not name them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

Name = str | int


@dataclass(frozen=True)
class Streams:
    """A family of random streams under one seed.

    Attributes:
        seed: The matrix's seed value.
        scope: Names that all streams of this family share, as sorted (key, value) pairs.
    """

    seed: int
    scope: tuple[tuple[str, Name], ...] = ()

    def at(self, **names: Name) -> Streams:
        """Return the family that also carries `names`, e.g. `streams.at(client=3, round=0)`."""
        return Streams(self.seed, tuple(sorted({**dict(self.scope), **names}.items())))

    def entropy(self, purpose: str, **names: Name) -> int:
        """Return the 63-bit seed of the stream for `purpose`."""
        scope = self.at(**names).scope
        address = "|".join([f"seed={self.seed}", f"purpose={purpose}", *(f"{k}={v}" for k, v in scope)])
        return int.from_bytes(hashlib.sha256(address.encode()).digest()[:8], "big") >> 1

    def torch(self, purpose: str, **names: Name) -> torch.Generator:
        """Return a fresh CPU generator; equal names give equal draws, wherever the result is used."""
        import torch

        return torch.Generator().manual_seed(self.entropy(purpose, **names))

    def numpy(self, purpose: str, **names: Name) -> np.random.Generator:
        """Return a fresh NumPy generator (PCG64)."""
        import numpy as np

        return np.random.default_rng(self.entropy(purpose, **names))
