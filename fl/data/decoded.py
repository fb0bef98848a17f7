"""Image files as parts of a data set: decoded when they are asked for, never all held in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from fl.data.config import Fit
from fl.data.folder_pixels import open_resized

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image
    from torch import Tensor

    from fl.data.table_labels import Label
    from fl.specs import Task

KEPT_BYTES = 256 * 2**20
"""Decoded images that each part keeps in memory, at one byte per value."""


class DecodedFiles:
    """Reads files through a decoder and keeps the last used ones as bytes."""

    def __init__(self, paths: Sequence[Path], decode: Callable[[Path], Tensor], *, kept_bytes: int) -> None:
        """Take the files, what makes a uint8 tensor `C x H x W` of one, and a budget."""
        self._paths, self._decode = paths, decode
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self._left = kept_bytes

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """Return files by position, `n x C x H x W` uint8."""
        return torch.stack([self._one(index) for index in indices])

    def _one(self, index: int) -> Tensor:
        pixels = self._kept.pop(index, None)
        if pixels is None:
            pixels = self._decode(self._paths[index])
            self._left -= pixels.nbytes
        self._kept[index] = pixels
        while self._left < 0 and len(self._kept) > 1:
            self._left += self._kept.popitem(last=False)[1].nbytes
        return pixels


def image_reader(
    paths: Sequence[Path],
    *,
    size: int,
    channels: Literal["gray", "rgb"],
    fit: Fit = "crop",
    kept_bytes: int = KEPT_BYTES,
) -> Callable[[Sequence[int]], Tensor]:
    """Return a reader of image files: from positions to `n x C x size x size` float32 in [0, 1].

    Args:
        paths: The files, by position.
        size: Side in pixels (`fl.data.folder_pixels.open_resized`).
        channels: Gray or RGB.
        fit: How an image becomes a square.
        kept_bytes: Memory for decoded images that may be asked for again.
    """
    files = DecodedFiles(
        paths, lambda path: _bytes(open_resized(path, size, channels, fit=fit)), kept_bytes=kept_bytes
    )
    return lambda indices: files(indices).float() / 255


def region_reader(
    paths: Sequence[Path], *, size: int, fit: Fit = "crop", kept_bytes: int = KEPT_BYTES
) -> Callable[[Sequence[int]], Tensor]:
    """Return a reader of masks: from positions to `n x 1 x size x size` bool, cut and resized as images are.

    Args:
        paths: The files, by position; bright is inside.
        size: Side in pixels.
        fit: How a mask becomes a square.
        kept_bytes: Memory for decoded masks that may be asked for again.
    """
    files = DecodedFiles(
        paths, lambda path: _bytes(open_resized(path, size, "gray", fit=fit)), kept_bytes=kept_bytes
    )
    return lambda indices: files(indices) > 127


def _bytes(image: Image.Image) -> Tensor:
    pixels = np.array(image)  # H x W or H x W x 3
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()


def label_tensor(labels: Sequence[Label], task: Task) -> Tensor:
    """Return labels as a part holds them: `N` int64, or `N x outputs` float32 (binary, multilabel)."""
    if task.kind == "multiclass":
        return torch.tensor(labels, dtype=torch.int64)
    return torch.tensor(labels, dtype=torch.float32).reshape(len(labels), task.outputs)
