"""`digits`: 8x8 handwritten digits that ship with scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from fl.data.catalog import DIGITS, DigitsConfig
from fl.data.memory import in_memory, packaged_file

if TYPE_CHECKING:
    from fl.data.base import Dataset

BRIGHTEST = 16


def load(config: DigitsConfig) -> Dataset:
    """Return the data set.

    Raises:
        DataUnavailableError: If the installed scikit-learn does not hold the expected file.
    """
    path = packaged_file("sklearn", "datasets/data", DIGITS, "digits.csv.gz")
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)  # 64 pixels and the class in each line
    images = torch.from_numpy(table[:, :-1] / BRIGHTEST).reshape(-1, 1, 8, 8)
    labels = [int(label) for label in table[:, -1]]
    ids = [f"digit-{row:04}" for row in range(len(labels))]
    return in_memory(DIGITS, config, images=images, labels=labels, ids=ids)
