"""What a generator looks like, and files of its weights as far as they can be read without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fl.data import assets
from fl.errors import DataUnavailableError
from fl.specs import Task

FACES = "gan-faces"
"""The packaged DCGAN of 64x64 RGB faces (`fl.data.assets`)."""

METADATA = "generator"
"""Under which the metadata of a safetensors file hold the layout."""

Family = Literal["upsampling", "styled", "transposed", "ggl", "gmi", "biggan_deep_256"]

_SMALLEST = 4
"""Side of the smallest maps, or the most that it is."""

_MOST_MAPS = 4
"""Feature maps of our own generators' first blocks over those of the last."""

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000


class Scale(NamedTuple):
    """Feature maps of one side length."""

    size: int
    maps: int


@dataclass(frozen=True)
class Layout:
    """Everything that rebuilds a generator without weights; plain JSON.

    Attributes:
        family: `upsampling` (ours); `styled`: ours with a style per layer; `transposed`: that of PyTorch's
            DCGAN tutorial, for 64x64; `ggl`: that of GGL's authors, for 32x32; `gmi`: that of
            GMI's released code, for 16x16, 32x32 or 64x64; `biggan_deep_256`: BigGAN-deep, for 256x256.
        channels: C of its images.
        size: Height and width that it draws at, in pixels.
        latent: Entries of a latent vector.
        width: Feature maps of the last block.
        mapping_layers: Layers between latent vector and synthesis.
        shown: Height and width that its images are averaged down to; None: as they are drawn.
        classes: Entries of a label as a vector of 0 and 1: classes, or outputs of a sigmoid task; 0: images
            are drawn without labels.
    """

    family: Family
    channels: int
    size: int
    latent: int
    width: int
    mapping_layers: int = 0
    shown: int | None = None
    classes: int = 0

    @property
    def styles(self) -> int:
        """Entries of a style vector: the latent vector's, and as many of the label's embedding."""
        return 2 * self.latent if self.classes else self.latent

    @property
    def scales(self) -> tuple[Scale, ...]:
        """What the blocks give, from the smallest maps to the largest, of a family that is trained here.

        Of our own the last block's side is the image's, and each block's half of the next one's, rounded up.
        """
        if self.family in ("ggl", "gmi"):
            doublings = (self.size // _SMALLEST).bit_length() - 1
            return tuple(
                Scale(_SMALLEST * 2**block, self.width * 2 ** (doublings - 1 - block))
                for block in range(doublings)
            )
        sizes = [self.size]
        while sizes[0] > _SMALLEST:
            sizes.insert(0, (sizes[0] + 1) // 2)
        last = len(sizes) - 1
        return tuple(
            Scale(size, self.width * min(2 ** (last - block), _MOST_MAPS)) for block, size in enumerate(sizes)
        )

    def unfit(self, channels: int, size: int) -> str | None:
        """Return why it cannot give images of `channels` x `size` x `size`, or None."""
        if self.channels != channels:
            return f"the generator's images have {self.channels} channels, the private ones {channels}"
        if self.size < size:
            return f"the generator's images have {self.size} pixels a side, the private ones {size}"
        return None

    def unfit_for(self, task: Task) -> str | None:
        """Return why it cannot draw by a task's labels, or None."""
        if self.classes not in (0, task.outputs):
            return f"the generator draws by {self.classes} classes, the task has {task.outputs}"
        return None

    def showing(self, size: int) -> Layout:
        """Return the layout with images averaged down to `size`."""
        return replace(self, shown=None if size == self.size else size)

    def document(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


FACES_LAYOUT = Layout("transposed", channels=3, size=64, latent=100, width=64)

GGL_SIZE = 32

GMI_SIZES = (16, 32, 64)
"""32 and 64 are those of the released nets."""

RELEASED: Mapping[str, Layout] = {
    "ggl": Layout("ggl", channels=3, size=GGL_SIZE, latent=128, width=128),
    "biggan_deep_256": Layout("biggan_deep_256", channels=3, size=256, latent=128, width=128, classes=1000),
}
"""What files of other projects hold, by what a configuration calls their architecture."""


def checkpoint_digest(checkpoint: str) -> str:
    """Return the sha256 of a checkpoint's file, in hex; of a packaged one without fetching it.

    Raises:
        DataUnavailableError: If the file cannot be read.
    """
    if checkpoint == FACES:
        return assets.ASSETS[FACES].members[0].sha256
    try:
        return hashlib.sha256(Path(checkpoint).expanduser().read_bytes()).hexdigest()
    except (OSError, RuntimeError) as error:
        raise _unreadable(checkpoint, error) from error


def checkpoint_layout(checkpoint: str, architecture: str) -> Layout:
    """Return the layout of a checkpoint; of a file, from its header alone.

    Args:
        checkpoint: The file, or the name of the packaged DCGAN.
        architecture: One of `RELEASED` where the file is another project's.

    Raises:
        DataUnavailableError: If the file cannot be read or holds no generator.
    """
    if architecture in RELEASED:
        return RELEASED[architecture]
    if checkpoint == FACES:
        return FACES_LAYOUT
    try:
        with Path(checkpoint).expanduser().open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            header = file.read(length) if length <= _MAX_HEADER_BYTES else b""
    except (OSError, RuntimeError) as error:
        raise _unreadable(checkpoint, error) from error
    try:
        return Layout(**json.loads(json.loads(header)["__metadata__"][METADATA]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataUnavailableError(
            f"{checkpoint}: expected a generator that `fl.generators.files.write` wrote (safetensors, its "
            f"layout under {METADATA!r} in the metadata), got a file without one; of other projects' files "
            f"those with architecture: {' or '.join(RELEASED)} are read, others have to be renamed first "
            "(docs/priors.md)"
        ) from error


def _unreadable(checkpoint: str, error: Exception) -> DataUnavailableError:
    reason = getattr(error, "strerror", None) or error
    return DataUnavailableError(
        f"expected a generator's checkpoint, cannot read {checkpoint!r}: {reason}; name a file or {FACES}"
    )
