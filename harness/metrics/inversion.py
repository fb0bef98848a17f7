"""What model inversion made beside real images of the same classes, as an evaluator sees both.

The reference stretches every image to its own full range before it is judged and stores it as PNG; here
images are judged as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fl.errors import NotApplicableError
from harness.metrics.cards_inversion import NEIGHBOURS
from harness.metrics.pairs import euclidean

ROWS = 1024
"""Rows of a matrix of distances that are in memory at once."""


@dataclass(frozen=True)
class Views:
    """Images as an evaluator sees them.

    Attributes:
        labels: The class that each is of, or is meant to be of, `n` int64.
        features: What enters the evaluator's last layer, `n x d` float64.
        probabilities: What it gives each class, `n x classes` float64.
    """

    labels: Tensor
    features: Tensor
    probabilities: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def named(self) -> Tensor:
        """The class that the evaluator takes each for, `n` int64."""
        return self.probabilities.argmax(1)

    @property
    def n_bytes(self) -> int:
        """About how much is held."""
        return self.labels.nbytes + self.features.nbytes + self.probabilities.nbytes

    def of(self, label: int) -> Tensor:
        """Return the features of the images of a class, `m x d`."""
        return self.features[self.labels == label]

    def reach(self, k: int) -> Tensor:
        """Return each image's distance to the k-th nearest other, `n`; `1 <= k <= min(NEIGHBOURS, n - 1)`."""
        return self._nearest[:, k]

    @cached_property
    def _nearest(self) -> Tensor:
        """Each image's distances to itself (0) and its `NEIGHBOURS` nearest others, as far as there are."""
        few = min(NEIGHBOURS + 1, len(self))
        chunks = torch.split(self.features, ROWS)
        return torch.cat([euclidean(r, self.features).topk(few, largest=False).values for r in chunks])


@dataclass(frozen=True)
class Inversion:
    """What metrics of kind `set` that an evaluator measures are given.

    Attributes:
        images: What was made, `n x C x H x W` in [0, 1], n >= 1.
        finite: Whether the attack gave numbers, `n` bool; noise stands in for what it did not.
        made: The same, as the evaluator sees it.
        real: Private images of the targets' classes that others than the attacker hold.
    """

    images: Tensor
    finite: Tensor
    made: Views
    real: Views

    @property
    def labels(self) -> list[int]:
        """The targets' classes, in order."""
        return sorted(set(self.made.labels.tolist()))

    @property
    def neighbours(self) -> int:
        """How many neighbours decide an image's reach.

        Raises:
            NotApplicableError: If there are fewer than two images on either side.
        """
        fewest = min(len(self.made), len(self.real))
        if fewest < 2:
            raise NotApplicableError("neighbours are counted in sets of at least two images")
        return min(NEIGHBOURS, fewest - 1)
