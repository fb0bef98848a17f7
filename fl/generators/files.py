"""Generators as files and as tensors: safetensors in our layout, and the packaged DCGAN."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fl.data import assets
from fl.errors import BenchError, DataUnavailableError
from fl.generators.architecture import Generator
from fl.generators.layout import FACES, METADATA, Layout, checkpoint_layout
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


def read(checkpoint: str) -> Generator:
    """Return the generator of a checkpoint, in eval mode, without gradients.

    Args:
        checkpoint: A file that `write` wrote, or the name of the packaged DCGAN, which is fetched if need be.

    Raises:
        DataUnavailableError: If it cannot be had, or does not fit its own layout.
    """
    layout = checkpoint_layout(checkpoint)
    path = assets.fetch(FACES) if checkpoint == FACES else Path(checkpoint).expanduser()
    generator = _blank(layout)
    own = generator.state_dict()
    try:
        found = _packaged(path) if checkpoint == FACES else read_weights(path)
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


def _packaged(path: Path) -> Mapping[str, Tensor]:
    """Read the weights, which lie in a file of torch's; nothing but tensors is unpickled."""
    loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    weights: Mapping[str, Tensor] = loaded["netG_state_dict"]
    return weights
