"""Opening, checking and resizing one image file with Pillow alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

from fl.errors import DataUnavailableError

EIGHT_BIT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
SIXTEEN_BIT = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for a damaged, foreign or absurdly large file."""


class UnusableError(Exception):
    """Why a file is not an image that can be used, in words that follow its path."""


def inspect(content: bytes) -> tuple[int, int]:
    """Return width and height of an image file.

    The pixels are not decoded; the checksums that the format has (PNG) are verified.

    Raises:
        UnusableError: If it is damaged, not an image, or of a pixel type without a fixed range.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height, mode = image.width, image.height, image.mode
            image.verify()
    except UNREADABLE as error:
        raise UnusableError(
            f"expected an image, got a damaged or unknown file ({type(error).__name__})"
        ) from error
    if mode not in EIGHT_BIT | SIXTEEN_BIT:
        raise UnusableError(f"expected 8 or 16 bits per channel, got Pillow mode {mode!r}; convert it")
    return width, height


def open_resized(path: Path, size: int, channels: Literal["gray", "rgb"]) -> Image.Image:
    """Return an image file as `size` x `size` pixels of mode L or RGB.

    The shorter side is resized bilinearly (antialiased) to `size` and the centre is kept; 16-bit values are
    divided by 257.

    Raises:
        DataUnavailableError: If the file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            if image.mode in SIXTEEN_BIT:
                eight_bit = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
            else:
                eight_bit = image
            converted = eight_bit.convert("L" if channels == "gray" else "RGB")
            return ImageOps.fit(converted, (size, size), Image.Resampling.BILINEAR)
    except UNREADABLE as error:
        raise DataUnavailableError(
            f"{path}: expected an image, got a damaged file ({error}); replace or remove it"
        ) from error
