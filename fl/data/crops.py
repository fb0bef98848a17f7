"""`retina` and `photographs`: tiles of photographs that ship with scikit-image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from fl.data.catalog import PHOTOGRAPH_TILES, RETINA_TILES, TilesConfig
from fl.data.memory import in_memory, packaged_file
from fl.data.tiles import PHOTOGRAPHS, RETINA, TILE, Photograph, Tile, photograph_tiles, retina_tiles

if TYPE_CHECKING:
    from torch import Tensor

    from fl.data.base import Dataset
    from fl.data.packaged import PackagedSet


def load_retina(config: TilesConfig) -> Dataset:
    """Return the tiles of the fundus photograph.

    Raises:
        DataUnavailableError: If the installed scikit-image does not hold the expected file.
    """
    return _load(RETINA_TILES, config, [RETINA], retina_tiles())


def load_photographs(config: TilesConfig) -> Dataset:
    """Return the tiles of the photographs.

    Raises:
        DataUnavailableError: If the installed scikit-image does not hold the expected files.
    """
    return _load(PHOTOGRAPH_TILES, config, PHOTOGRAPHS, photograph_tiles())


def _load(
    facts: PackagedSet, config: TilesConfig, photographs: Sequence[Photograph], tiles: Sequence[Tile]
) -> Dataset:
    sources = [_pixels(facts, photograph) for photograph in photographs]
    images = torch.stack(
        [sources[t.source][:, t.top : t.top + TILE, t.left : t.left + TILE] for t in tiles]
    )  # N x 3 x 64 x 64
    return in_memory(
        facts, config, images=images, labels=[tile.label for tile in tiles], ids=[tile.id for tile in tiles]
    )


def _pixels(facts: PackagedSet, photograph: Photograph) -> Tensor:
    with Image.open(packaged_file("skimage", "data", facts, photograph.file)) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)  # 3 x H x W
