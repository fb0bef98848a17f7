"""Images as PNG files in memory (ISO/IEC 15948)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fl.errors import NotApplicableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 3: 2}
"""Greyscale and truecolour, by number of channels."""
COMPRESSION = 6
MIN_WINDOW = 9
"""Base-2 logarithm of the smallest window that all versions of zlib write."""


def encode(image: Tensor) -> bytes:
    """Return an image (`C x H x W` in [0, 1], C = 1 or 3) as an 8-bit PNG.

    Values are clamped and rounded to the nearest of 256 levels; those that are not a number become 0.

    Raises:
        NotApplicableError: If the image has another number of channels.
    """
    return encode_all([image])[0]


def encode_all(images: Sequence[Tensor]) -> list[bytes]:
    """Return images as PNG files, each as `encode` would; many of one shape take little longer than one.

    Raises:
        NotApplicableError: If an image has neither 1 nor 3 channels.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        alike.setdefault(tuple(image.shape), []).append(index)
    encoded = [b""] * len(images)
    for indices in alike.values():
        contents = _encode(torch.stack([images[index].detach().cpu() for index in indices]))
        for index, content in zip(indices, contents, strict=True):
            encoded[index] = content
    return encoded


def _encode(images: Tensor) -> Iterator[bytes]:
    """Encode `n x C x H x W` images."""
    channels, height, width = images.shape[1:]
    if channels not in COLOUR_TYPES:
        raise NotApplicableError(f"expected an image with 1 or 3 channels, got {channels}")
    levels = torch.nan_to_num(images.double(), nan=0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    start, end = SIGNATURE + _chunk(b"IHDR", header), _chunk(b"IEND", b"")
    rows = levels.movedim(1, -1).reshape(len(levels), height, width * channels).numpy()
    for one in _filtered(rows, channels):
        yield start + _chunk(b"IDAT", _compressed(one)) + end


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _compressed(content: bytes) -> bytes:
    """Compress with a window no larger than the content: clearing a large one takes longer than the rest."""
    window = min(max(len(content).bit_length(), MIN_WINDOW), zlib.MAX_WBITS)
    deflate = zlib.compressobj(COMPRESSION, zlib.DEFLATED, window, window - 7)
    return deflate.compress(content) + deflate.flush()


def _filtered(rows: NDArray[np.uint8], channels: int) -> list[bytes]:
    """Filter lines of `n x H x (W C)` levels: by nothing, the left or the upper neighbour.

    Each line gets the filter whose output, as signed bytes, has the least sum of magnitudes (the standard's
    section 12.7), of ties the first.
    """
    left, above = np.zeros_like(rows), np.zeros_like(rows)
    left[..., channels:] = rows[..., :-channels]
    above[:, 1:] = rows[:, :-1]
    candidates = np.stack([rows, rows - left, rows - above])  # differences modulo 256
    magnitudes = np.minimum(candidates, 0 - candidates).sum(-1, dtype=np.int64)
    chosen = magnitudes.argmin(0)  # n x H
    lines = np.take_along_axis(candidates, chosen[None, ..., None], 0)[0]
    marked = np.concatenate([chosen[..., None].astype(np.uint8), lines], axis=-1)
    return [image.tobytes() for image in marked]
