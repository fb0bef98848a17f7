"""`faces`: 25x25 crops of press photographs that ship with scikit-image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from fl.data.catalog import FACES, FacesConfig
from fl.data.memory import in_memory, packaged_file

if TYPE_CHECKING:
    from fl.data.base import Dataset

FACES_FIRST = 100
"""The file holds this many faces, then as many crops without one."""


def load(config: FacesConfig) -> Dataset:
    """Return the data set.

    Raises:
        DataUnavailableError: If the installed scikit-image does not hold the expected file.
    """
    crops = np.load(packaged_file("skimage", "data", FACES, "lfw_subset.npy"), allow_pickle=False)
    images = torch.from_numpy(crops.astype(np.float32)).unsqueeze(1)  # 200 x 1 x 25 x 25
    labels = [int(row < FACES_FIRST) for row in range(len(crops))]
    ids = [f"lfw-{row:03}" for row in range(len(crops))]
    return in_memory(FACES, config, images=images, labels=labels, ids=ids)
