"""From states to flat tensors and plain JSON, and back: what artifacts and recorded observations share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fl.specs import JSON
from fl.types import Architecture, ImageSpec, ModelState, Tensors, Wrapper

if TYPE_CHECKING:
    from torch import Tensor


def prefixed(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    """Return the tensors under names that start with `prefix`."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def architecture_to_json(architecture: Architecture) -> dict[str, JSON]:
    """Return an architecture as plain JSON."""
    image = architecture.image
    return {
        "name": architecture.name,
        "config": dict(architecture.config),
        "image": {
            "channels": image.channels,
            "size": image.size,
            "mean": list(image.mean),
            "std": list(image.std),
        },
        "outputs": architecture.outputs,
        "wrappers": [{"name": w.name, "config": dict(w.config)} for w in architecture.wrappers],
    }


def architecture_from_json(data: Mapping[str, Any]) -> Architecture:
    """Return the architecture that `architecture_to_json` wrote."""
    image = data["image"]
    return Architecture(
        name=data["name"],
        config=data["config"],
        image=ImageSpec(image["channels"], image["size"], tuple(image["mean"]), tuple(image["std"])),
        outputs=data["outputs"],
        wrappers=tuple(Wrapper(w["name"], w["config"]) for w in data["wrappers"]),
    )


def model_to_json(state: ModelState) -> dict[str, JSON]:
    """Return all of a model's state but its tensors as plain JSON."""
    return {
        "architecture": architecture_to_json(state.architecture),
        "trainable": list(state.trainable),
        "batch_norm": state.batch_norm,
    }


def model_from_json(data: Mapping[str, Any], tensors: Tensors) -> ModelState:
    """Return the model that `model_to_json` wrote, with its tensors."""
    return ModelState(
        architecture=architecture_from_json(data["architecture"]),
        tensors=tensors,
        trainable=tuple(data["trainable"]),
        batch_norm=data["batch_norm"],
    )
