"""DICOM files with a single image, as their own display settings show it.

Parts of the standard are cited as PS3.x. Its header is read without numpy, its pixels with it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from PIL import Image
from pydicom import Dataset, config, dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi
from pydicom.pixels.utils import get_expected_length, pixel_array
from pydicom.uid import (
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from fl.data.folder_pixels import ImageFacts, UnusableError
from fl.specs import canonical_json, digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

GRAY = frozenset({"MONOCHROME1", "MONOCHROME2"})
COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
PERCENTILES = (0.5, 99.5)
"""Of an image's values: shown as black and white where the file names no window."""

_PACKAGES = (
    (JPEGTransferSyntaxes, "pylibjpeg pylibjpeg-libjpeg"),
    (JPEGLSTransferSyntaxes, "pyjpegls"),
    (JPEG2000TransferSyntaxes, "pylibjpeg pylibjpeg-openjpeg"),
)
"""Plug-ins of pydicom, by what they decode beyond pydicom and Pillow."""


def read_facts(content: bytes) -> ImageFacts:
    """Return what the header says; pixels are not decoded.

    Raises:
        UnusableError: If the file is damaged, holds no image or several, or cannot be decoded here.
    """
    with _errors_named():
        dataset = _read(content)
        issuer, patient = str(dataset.get("IssuerOfPatientID") or ""), str(dataset.get("PatientID") or "")
        hashed = digest(canonical_json([issuer, patient]))[:16] if patient else ""
        return ImageFacts(int(dataset.Columns), int(dataset.Rows), hashed)


def decode(content: bytes) -> Image.Image:
    """Return the image, of mode L or RGB.

    Gray values go through the modality transform (rescale slope and intercept, or a table), then through the
    first VOI table or window, else between `PERCENTILES`; MONOCHROME1 is inverted, so that high is white
    (PS3.3 sections C.7.6.3.1.2, C.11.1, C.11.2).

    Raises:
        UnusableError: If the file is damaged, holds no image or several, or cannot be decoded here.
    """
    with _errors_named():
        dataset = _read(content)
        pixels = pixel_array(dataset)
        if dataset.PhotometricInterpretation in COLOUR:
            return Image.fromarray(pixels)
        shown = _shown(apply_modality_lut(pixels, dataset).astype("float64"), dataset)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            shown = 1 - shown
        return Image.fromarray((shown * 255).round().astype("uint8"))


@contextmanager
def _errors_named() -> Iterator[None]:
    """Turn what pydicom raises into an `UnusableError`, and keep its warnings quiet: both may quote values.

    pydicom does not say which errors to expect, and a damaged header leads almost anywhere.
    """
    try:
        with config.disable_value_validation(), warnings.catch_warnings(action="ignore"):
            yield
    except UnusableError:
        raise
    except Exception as error:
        raise UnusableError(
            f"expected a DICOM image, got a file that cannot be decoded ({type(error).__name__})"
        ) from None


def _read(content: bytes) -> Dataset:
    dataset = dcmread(io.BytesIO(content))
    flaw = _flaw(dataset) or _undecodable(dataset)
    if flaw:
        raise UnusableError(flaw)
    return dataset


def _flaw(dataset: Dataset) -> str | None:
    if "PixelData" not in dataset:
        return "expected a DICOM image, got a file without pixel data"
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        return f"expected one frame, got a DICOM file with {frames}; save the frames that you want one by one"
    kind = dataset.PhotometricInterpretation
    if kind not in GRAY | COLOUR:
        return f"expected one of {', '.join(sorted(GRAY | COLOUR))}, got DICOM pixels of {kind}; convert it"
    allowed = (8, 16) if kind in GRAY else (8,)
    if dataset.BitsAllocated not in allowed:
        bits = " or ".join(map(str, allowed))
        return f"expected {bits} bits per {kind} value, got DICOM with {dataset.BitsAllocated}; convert it"
    return None


def _undecodable(dataset: Dataset) -> str | None:
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        expected, found = get_expected_length(dataset), len(dataset.PixelData)
        return f"expected {expected} bytes of DICOM pixels, got {found}" if found < expected else None
    try:
        decoders = set(get_decoder(syntax).available_plugins)
    except NotImplementedError:
        decoders = set()
    if syntax == JPEGExtended12Bit and dataset.BitsStored > 8:
        decoders.discard("pillow")  # it reads 8 bits only
    if decoders:
        return None
    install = [packages for syntaxes, packages in _PACKAGES if syntax in syntaxes]
    remedy = f"`pip install {install[0]}`, or convert it" if install else "convert it"
    return f"expected DICOM pixels that can be decoded here, got {syntax.name}; {remedy}"


def _shown(values: Values, dataset: Dataset) -> Values:
    """Return modality values `H x W` as shown, in [0, 1]."""
    import numpy as np

    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return cast("Values", apply_voi(values, dataset) / (2**bits - 1))
    if dataset.get("WindowWidth") is not None and dataset.get("WindowCenter") is not None:
        function = str(dataset.get("VOILUTFunction") or "LINEAR")
        return _windowed(values, _first(dataset.WindowCenter), _first(dataset.WindowWidth), function)
    low, high = np.percentile(values, PERCENTILES)
    return _ramp(values, float(low), float(high))


def _windowed(values: Values, centre: float, width: float, function: str) -> Values:
    """Apply a window (PS3.3 section C.11.2.1.2.1 for LINEAR, C.11.2.1.3 for the others)."""
    import numpy as np

    match function:
        case "LINEAR":
            return _ramp(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
        case "LINEAR_EXACT":
            return _ramp(values, centre - width / 2, centre + width / 2)
        case "SIGMOID" if width > 0:
            return 1 / (1 + np.exp(-4 * (values - centre) / width))
        case _:
            raise UnusableError(f"expected a window, got DICOM with {function} of width {width:g}; mend it")


def _ramp(values: Values, low: float, high: float) -> Values:
    """Return 0 up to `low`, 1 above `high` and a line between."""
    if high <= low:
        return (values > low).astype("float64")
    return ((values - low) / (high - low)).clip(0, 1)


def _first(value: float | Sequence[float]) -> float:
    """Return the first of several values, or the only one."""
    return float(value[0] if isinstance(value, Sequence) else value)
