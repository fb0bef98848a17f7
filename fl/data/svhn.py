"""SVHN's cropped digits: MATLAB files of version 5 (Netzer et al., NIPS Workshop on Deep Learning 2011)."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.io import loadmat, matlab, whosmat

from fl.data.array_formats import Files, MalformedError

if TYPE_CHECKING:
    from fl.data.array_formats import Images, Labels

_MALFORMED = (matlab.MatReadError, ValueError, TypeError, KeyError, IndexError, EOFError, zlib.error)
"""What reading a file of another kind may raise."""


class Svhn:
    """One file a part: `X`, `H x W x 3 x N` bytes, and `y`, N classes of which 10 means the digit 0."""

    def shape(self, files: Files, part: str) -> tuple[int, ...]:
        """Return `(N, H, W, 3)` from the directory of the file."""
        try:
            shapes = {name: shape for name, shape, _ in whosmat(files[0])}
            height, width, channels, images = shapes["X"]
        except _MALFORMED as error:
            raise _malformed(files[0], error) from error
        return images, height, width, channels

    def labels(self, files: Files, part: str) -> Labels:
        """Return the N digits."""
        labels = _variable(files[0], "y").astype(np.int64).reshape(-1)
        return np.where(labels == 10, 0, labels)

    def images(self, files: Files, part: str) -> Images:
        """Return the images, `N x H x W x 3`."""
        pixels = _variable(files[0], "X")
        if pixels.dtype != np.uint8 or pixels.ndim != 4:
            raise MalformedError(
                files[0], f"expected bytes of shape H x W x 3 x N, got {pixels.dtype} {pixels.shape}"
            )
        return np.ascontiguousarray(pixels.transpose(3, 0, 1, 2))


def _variable(path: Path, name: str) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(loadmat(path, variable_names=[name])[name])
    except _MALFORMED as error:
        raise _malformed(path, error) from error


def _malformed(path: Path, error: Exception) -> MalformedError:
    return MalformedError(path, f"expected a MATLAB file with X and y, got: {error}")
