"""How photographs are cut into tiles that share no pixel."""

from __future__ import annotations

from typing import NamedTuple

TILE = 64
"""Side of a tile in the source's own pixels; smaller images are made by averaging."""

RETINA_RADIUS = 690
"""Pixels around the centre that lie inside the camera's circular field (measured: about 696)."""


class Photograph(NamedTuple):
    """An RGB image that ships with scikit-image.

    Attributes:
        name: Word for people and ids.
        file: Its name in scikit-image's data folder.
        sha256: Digest of the file.
        height: In pixels.
        width: In pixels.
    """

    name: str
    file: str
    sha256: str
    height: int
    width: int


class Tile(NamedTuple):
    """A square of a photograph.

    Attributes:
        id: Source, row and column of the grid.
        source: Position of its photograph in the list it was cut from.
        top: First pixel row.
        left: First pixel column.
        label: Its class.
    """

    id: str
    source: int
    top: int
    left: int
    label: int


RETINA = Photograph(
    "retina", "retina.jpg", "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6", 1411, 1411
)
PHOTOGRAPHS = (
    Photograph(
        "astronaut",
        "astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        512,
        512,
    ),
    Photograph(
        "chelsea", "chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb", 300, 451
    ),
    Photograph(
        "coffee", "coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7", 400, 600
    ),
    Photograph(
        "rocket", "rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c", 427, 640
    ),
)


def photograph_tiles() -> list[Tile]:
    """Return all tiles of all photographs; the class is the photograph."""
    return [tile for source in range(len(PHOTOGRAPHS)) for tile in _grid(PHOTOGRAPHS[source], source)]


def retina_tiles() -> list[Tile]:
    """Return the tiles wholly inside the camera's field; the class is the quadrant of the field.

    Classes 0 to 3: upper left, upper right, lower left, lower right. The optic disc lies on the left.
    """
    centre_y, centre_x = RETINA.height // 2, RETINA.width // 2
    return [
        tile._replace(label=2 * (tile.top >= centre_y) + (tile.left >= centre_x))
        for tile in _grid(RETINA, 0)
        if all(
            (y - centre_y) ** 2 + (x - centre_x) ** 2 <= RETINA_RADIUS**2
            for y in (tile.top, tile.top + TILE)
            for x in (tile.left, tile.left + TILE)
        )
    ]


def _grid(photograph: Photograph, source: int) -> list[Tile]:
    rows, columns = photograph.height // TILE, photograph.width // TILE
    top, left = (photograph.height - rows * TILE) // 2, (photograph.width - columns * TILE) // 2
    return [
        Tile(
            f"{photograph.name}-r{row:02}-c{column:02}",
            source,
            top + row * TILE,
            left + column * TILE,
            source,
        )
        for row in range(rows)
        for column in range(columns)
    ]
