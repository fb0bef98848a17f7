"""Opening, checking and resizing one image file: with Pillow alone, or pydicom where it is DICOM."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image, ImageOps

from fl.data.config import Fit
from fl.errors import DataUnavailableError

EIGHT_BIT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
SIXTEEN_BIT = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for a damaged, foreign or absurdly large file."""


class UnusableError(Exception):
    """Why a file is not an image that can be used, in words that follow its path."""


class ImageFacts(NamedTuple):
    """What an image file says about itself.

    Attributes:
        width: In pixels.
        height: In pixels.
        patient: DICOM: start of the sha256 of the patient's id and its issuer; "" if none is given. It is a
            pseudonym: whoever guesses the id can check the guess.
    """

    width: int
    height: int
    patient: str = ""


def is_dicom(content: bytes) -> bool:
    """Return whether a file, or its first 132 bytes, has the mark of DICOM (PS3.10 section 7.1)."""
    return content[128:132] == b"DICM"


def inspect(content: bytes) -> ImageFacts:
    """Return what an image file says about itself.

    The pixels are not decoded; the checksums that the format has (PNG) are verified.

    Raises:
        UnusableError: If it is damaged, not an image, or of a pixel type without a fixed range.
    """
    if is_dicom(content):
        from fl.data.dicom import read_facts

        return read_facts(content)
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
    return ImageFacts(width, height)


def open_resized(
    path: Path, size: int, channels: Literal["gray", "rgb"], *, fit: Fit = "crop"
) -> Image.Image:
    """Return an image file as `size` x `size` pixels of mode L or RGB.

    Resizing is bilinear (antialiased): to `crop`, the shorter side is resized to `size` and the centre is
    kept; to `stretch`, both sides are. 16-bit values are divided by 257, DICOM ones shown as
    `fl.data.dicom.decode` says.

    Raises:
        DataUnavailableError: If the file cannot be decoded.
    """
    try:
        converted = _decode(path).convert("L" if channels == "gray" else "RGB")
        if fit == "stretch":
            return converted.resize((size, size), Image.Resampling.BILINEAR)
        return ImageOps.fit(converted, (size, size), Image.Resampling.BILINEAR)
    except UnusableError as error:
        raise DataUnavailableError(f"{path}: {error}; replace or remove it") from error
    except UNREADABLE as error:
        raise DataUnavailableError(
            f"{path}: expected an image, got a damaged file ({error}); replace or remove it"
        ) from error


def _decode(path: Path) -> Image.Image:
    """Return an image file with 8 bits per channel."""
    content = path.read_bytes()
    if is_dicom(content):
        from fl.data.dicom import decode

        return decode(content)
    with Image.open(io.BytesIO(content)) as image:
        if image.mode in SIXTEEN_BIT:
            return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
        image.load()
        return image
