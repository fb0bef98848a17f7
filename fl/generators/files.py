"""Generators as files and as tensors: in our layout, the packaged DCGAN, and those of other projects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fl.data import assets
from fl.errors import BenchError, DataUnavailableError
from fl.generators import biggan_files, ggl
from fl.generators.architecture import Generator
from fl.generators.layout import FACES, METADATA, RELEASED, Layout, checkpoint_layout
from fl.types import Tensors
from fl.weight_files import fitted, read_weights


def write(path: Path, generator: Generator) -> None:
    """Write a generator as a file that `checkpoint:` takes.

    Raises:
        OSError: If it cannot be written.
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.state_dict().items()}
    save_file(tensors, path, metadata={METADATA: json.dumps(generator.layout.document())})


def read(checkpoint: str, architecture: str = "upsampling") -> Generator:
    """Return the generator of a checkpoint, in eval mode, without gradients.

    Args:
        checkpoint: A file that `write` wrote, the name of the packaged DCGAN, which is fetched if need be, or
            another project's file: safetensors, or saved by torch.
        architecture: Of another project's file (`fl.generators.layout.RELEASED`).

    Raises:
        DataUnavailableError: If it cannot be had, or does not fit its layout.
    """
    path = assets.fetch(FACES) if checkpoint == FACES else Path(checkpoint).expanduser()
    if architecture in RELEASED:
        layout, found = _released(path, architecture)
    else:
        layout = checkpoint_layout(checkpoint, architecture)
        found = _packaged(path) if checkpoint == FACES else _weights(path)
    generator = _blank(layout)
    own = generator.state_dict()
    try:
        generator.load_state_dict(fitted(path, found, own, by_order=checkpoint == FACES))
    except BenchError as error:
        raise DataUnavailableError(f"{error}; its layout is {layout.document()}") from error
    return frozen(generator)


def build(layout: Layout, tensors: Tensors) -> Generator:
    """Return the generator with these weights, in eval mode, without gradients."""
    generator = _blank(layout)
    generator.load_state_dict(dict(tensors))
    return frozen(generator)


def frozen(generator: Generator) -> Generator:
    """Put a generator into eval mode and take its weights out of differentiation."""
    return generator.eval().requires_grad_(False)


def _blank(layout: Layout) -> Generator:
    """Return a generator with arbitrary weights; the global random generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        return Generator(layout)


def _released(path: Path, architecture: str) -> tuple[Layout, Mapping[str, Tensor]]:
    """Return the layout and the weights of another project's file."""
    found = _weights(path)
    try:
        return ggl.renamed(found) if architecture == "ggl" else biggan_files.renamed(found)
    except LookupError as error:
        raise DataUnavailableError(
            f"{path}: expected weights of architecture: {architecture} under the names of its authors "
            f"(docs/priors.md), got none called {error.args[0]}"
        ) from error


def _weights(path: Path) -> Mapping[str, Tensor]:
    try:
        return read_weights(path)
    except BenchError as error:
        raise DataUnavailableError(str(error)) from error


def _packaged(path: Path) -> Mapping[str, Tensor]:
    """Read the weights, which lie in a file of torch's; nothing but tensors is unpickled."""
    loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    weights: Mapping[str, Tensor] = loaded["netG_state_dict"]
    return weights
