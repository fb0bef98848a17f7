"""The rule that fixes the parts of a data set: by content of names, never by a seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from fl.cards import PARTS
from fl.specs import digest


class Shares(NamedTuple):
    """Share of the images in each part; they sum to 1."""

    private: float = 0.55
    public: float = 0.15
    evaluation: float = 0.15
    test: float = 0.15


def quotas(units: int, shares: Shares) -> dict[str, int]:
    """Return how many of `units` go to each part: the cumulative shares, rounded half up.

    The quotas sum to `units`.
    """
    counts, cumulative, before = {}, 0.0, 0
    for part, share in zip(PARTS, shares, strict=True):
        cumulative += share
        upto = min(int(units * cumulative + 0.5 + 1e-9), units)
        counts[part] = upto - before
        before = upto
    return counts


def assign_parts(keys: Sequence[str], strata: Sequence[Hashable], shares: Shares) -> list[str]:
    """Return the part of each unit (an image, or all images of a patient).

    Within each stratum (a class) the units are ordered by the sha256 of their key and cut at the quotas. So
    every part sees every class, neighbours in the source are spread, and no seed moves an image.

    Args:
        keys: A distinct name per unit.
        strata: The stratum of each unit.
        shares: Share of each part.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for position, stratum in enumerate(strata):
        members[stratum].append(position)
    parts = [""] * len(keys)
    for positions in members.values():
        ordered = sorted(positions, key=lambda position: digest(keys[position]))
        counts = quotas(len(ordered), shares)
        names = [part for part in PARTS for _ in range(counts[part])]
        for position, part in zip(ordered, names, strict=True):
            parts[position] = part
    return parts
