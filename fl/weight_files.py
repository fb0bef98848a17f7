"""Files of weights, as federated-learning platforms save them, read into the names of a registered model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl.errors import RecordedObservationError
from fl.types import Tensors

if TYPE_CHECKING:
    from torch import Tensor

COUNTER = "num_batches_tracked"
"""A buffer of batch norm that older files lack and nothing here depends on."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a `.safetensors` file, or of a torch file: bare, or under `state_dict`.

    Nothing but tensors and plain containers is unpickled. The prefix `module.` of data-parallel training is
    taken off.

    Raises:
        RecordedObservationError: If the file is missing or holds something else.
    """
    try:
        found = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    except OSError as error:
        raise RecordedObservationError(f"{path}: cannot be read: {error.strerror or error}") from error
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def fitted(path: Path, weights: Tensors, expected: Tensors, *, by_order: bool = False) -> dict[str, Tensor]:
    """Return the weights of a file under the names of a model, in the model's types.

    Args:
        path: The file, for messages.
        weights: What it holds.
        expected: The model's parameters and buffers.
        by_order: Pair tensors in the order of the file and of the model instead of by name.

    Raises:
        RecordedObservationError: If names or shapes differ, or a number is not finite.
    """
    if by_order:
        weights = _renamed(path, weights, expected)
    unknown = sorted(name for name in weights if name not in expected)
    missing = sorted(n for n in expected if n not in weights and not n.endswith(COUNTER))
    if unknown or missing:
        raise RecordedObservationError(
            f"{path}: expected the names of the model; missing: {_some(missing)}; unknown: {_some(unknown)}. "
            "If only the names differ, --by-order pairs tensors by their order and checks shapes"
        )
    fit: dict[str, Tensor] = {}
    for name, like in expected.items():
        tensor = weights.get(name, like)
        if tensor.shape != like.shape:
            raise RecordedObservationError(
                f"{path}: {name}: expected shape {tuple(like.shape)}, got {tuple(tensor.shape)}; is it the "
                "same architecture, image size, number of channels and number of classes?"
            )
        if not tensor.isfinite().all():
            raise RecordedObservationError(f"{path}: {name}: expected finite numbers, got NaN or infinity")
        fit[name] = tensor.to(like.dtype)
    return fit


def write_weights(path: Path, tensors: Tensors) -> None:
    """Write a `.safetensors` file that only this user can read, whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    from safetensors.torch import save

    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save({name: t.detach().cpu().clone() for name, t in tensors.items()}))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise RecordedObservationError(f"{path}: expected a safetensors file: {error}") from error


def _torch(path: Path) -> Mapping[str, Tensor]:
    import torch

    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever the bytes of another kind of file lead an unpickler to
        raise RecordedObservationError(
            f"{path}: expected tensors and plain containers saved by torch.save, and no code to run "
            f"({type(error).__name__})"
        ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(_is_named_tensor(*entry) for entry in loaded.items()):
        raise RecordedObservationError(
            f"{path}: expected a state dict, or a mapping with one under 'state_dict', got "
            f"{type(loaded).__name__}"
        )
    return loaded


def _is_named_tensor(name: object, value: object) -> bool:
    import torch

    return isinstance(name, str) and isinstance(value, torch.Tensor)


def _renamed(path: Path, weights: Tensors, expected: Tensors) -> dict[str, Tensor]:
    theirs = [tensor for name, tensor in weights.items() if not name.endswith(COUNTER)]
    ours = [name for name in expected if not name.endswith(COUNTER)]
    if len(theirs) != len(ours):
        raise RecordedObservationError(
            f"{path}: expected {len(ours)} tensors, those of the model, got {len(theirs)}"
        )
    return dict(zip(ours, theirs, strict=True))


def _some(names: list[str]) -> str:
    listed = ", ".join(names[:3]) or "none"
    return f"{listed} and {len(names) - 3} more" if len(names) > 3 else listed
