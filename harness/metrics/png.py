"""Images as PNG files in memory."""

from __future__ import annotations

from io import BytesIO

import torch
from PIL import Image
from torch import Tensor

from fl.errors import NotApplicableError


def encode(image: Tensor) -> bytes:
    """Return an image (`C x H x W` in [0, 1], C = 1 or 3) as an 8-bit PNG.

    Values are clamped and rounded to the nearest of 256 levels; those that are not a number become 0.

    Raises:
        NotApplicableError: If the image has another number of channels.
    """
    levels = torch.nan_to_num(image.detach().cpu().double(), nan=0.0).clamp(0, 1).mul(255).round()
    pixels = levels.to(torch.uint8).movedim(0, -1).contiguous().numpy()
    if pixels.shape[-1] not in (1, 3):
        raise NotApplicableError(f"expected an image with 1 or 3 channels, got {pixels.shape[-1]}")
    buffer = BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
