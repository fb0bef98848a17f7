"""The Python version of CIFAR-10 and CIFAR-100: pickles, read without letting them run anything.

Format: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. Each batch is a dictionary
with `data`, `N x 3072` bytes (32 x 32 pixels of red, then green, then blue), and `labels` (CIFAR-10) or
`fine_labels` (CIFAR-100).
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fl.data.array_formats import Files, MalformedError
from fl.data.array_pickle import read_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fl.data.array_formats import Images, Labels

SIDE = 32

_MALFORMED = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)
"""What reading a pickle of another kind may raise."""


class Cifar:
    """Any number of batches a part."""

    def shape(self, files: Files, part: str) -> tuple[int, ...]:
        """Return `(N, 32, 32, 3)`."""
        return (sum(len(_batch(path)[0]) for path in files), SIDE, SIDE, 3)

    def labels(self, files: Files, part: str) -> Labels:
        """Return the N labels."""
        return np.concatenate([_batch(path)[1] for path in files])

    def images(self, files: Files, part: str) -> Images:
        """Return the images, `N x 32 x 32 x 3`."""
        rows = np.concatenate([_batch(path)[0] for path in files])
        return np.ascontiguousarray(rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))


def _batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the rows, `n x 3072`, and the n labels of one file."""
    try:
        content = read_arrays(path, encoding="latin1")
        rows = np.asarray(content["data"])
        labels = np.asarray(content["fine_labels" if "fine_labels" in content else "labels"])
    except _MALFORMED as error:
        raise MalformedError(path, f"expected a batch of CIFAR images, got: {error}") from error
    if rows.dtype != np.uint8 or rows.shape != (len(labels), 3 * SIDE**2) or labels.dtype.kind != "i":
        raise MalformedError(
            path,
            f"expected {3 * SIDE**2} bytes and an integer label for each image, got data of {rows.dtype} "
            f"{rows.shape} and labels of {labels.dtype} {labels.shape}",
        )
    return rows, labels.astype(np.int64)
