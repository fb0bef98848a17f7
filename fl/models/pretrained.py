"""Putting torchvision's ImageNet weights into a classifier, and downloading them from where it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fl.data.array_pickle import read_arrays
from fl.errors import DataUnavailableError
from fl.models import imagenet

_PACKAGED_NETWORK = "VGG16_0"


def read_weights(name: str, *, convolutions: Sequence[str] | None = None) -> Mapping[str, Tensor]:
    """Return torchvision's state dict, under the names of its file.

    Args:
        name: Which of `imagenet.WEIGHTS`.
        convolutions: Names of the convolutions, in order, if they alone are enough: then they may come from
            the packaged asset.

    Raises:
        DataUnavailableError: If the weights are not on this machine, or the file is another one.
    """
    weights = imagenet.WEIGHTS[name]
    path = imagenet.find(name, convolutions=convolutions is not None)
    if path == weights.path:
        imagenet.check(weights)
        tensors: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return tensors
    assert convolutions is not None
    return _packaged(path, convolutions)


def load_weights(
    model: nn.Module, tensors: Mapping[str, Tensor], renamed: Callable[[str], str | None]
) -> None:
    """Replace all of a classifier's weights and statistics but the head's.

    For images of one channel the first convolution's kernel is summed over RGB (Ziegler et al. 2022,
    arXiv 2205.03168, its code), so that a gray image gives what its three equal channels gave.

    Args:
        model: The classifier, with a head of its own.
        tensors: Torchvision's state dict.
        renamed: From a name there to the name here, or None for what is not taken.
    """
    own = model.state_dict()
    found = {name: tensor for stored, tensor in tensors.items() if (name := renamed(stored)) is not None}
    first = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)) + ".weight"
    if own[first].shape[1] == 1:
        found[first] = found[first].sum(dim=1, keepdim=True)
    missing = [name.rsplit(".", 1) for name in own.keys() - found.keys()]
    assert all(layer == "head" or tensor == "num_batches_tracked" for layer, tensor in missing), missing
    model.load_state_dict({**own, **found})


def download(weights: imagenet.ImageNetWeights) -> Path:
    """Return where torchvision keeps the file, downloading it from torchvision's address if it is not there.

    Raises:
        DataUnavailableError: If it cannot be had.
    """
    if weights.path.is_file():
        imagenet.check(weights)
        return weights.path
    from torchvision.models import get_weight

    try:
        weights.path.parent.mkdir(parents=True, exist_ok=True)
        url = get_weight(weights.enum).url
        torch.hub.download_url_to_file(url, str(weights.path), hash_prefix=weights.digits)
    except (OSError, RuntimeError) as error:  # RuntimeError: the digits differ
        raise DataUnavailableError(
            f"{weights.file} could not be downloaded: {error}; put it into {weights.path.parent} (TORCH_HOME "
            f"chooses the folder), or run `{weights.command}` where the internet can be reached"
        ) from error
    return weights.path


def _packaged(path: Path, convolutions: Sequence[str]) -> dict[str, Tensor]:
    layers = read_arrays(path)[_PACKAGED_NETWORK]
    tensors = {}
    for index, name in enumerate(convolutions):
        layer = layers[f"Conv_{index}"]
        kernel = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))  # h x w x inputs x outputs
        tensors[f"{name}.weight"] = torch.from_numpy(kernel)
        tensors[f"{name}.bias"] = torch.from_numpy(np.array(layer["bias"]))
    return tensors
