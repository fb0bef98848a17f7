"""BigGAN-deep's weights under the names of `pytorch-pretrained-biggan`, read into ours.

That project's files hold DeepMind's weights: convolutions and linear layers before spectral normalisation,
with the vectors that their largest singular value is estimated by, and batch norm's statistics for 51
truncations of the latent vectors, from 0 to 1. Ours are divided by that value once and for all, and keep the
statistics of truncation 1, the latent vectors' own distribution.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fl.generators.biggan import ATTENTION, CHANNELS, STEPS
from fl.generators.layout import RELEASED, Layout
from fl.types import Tensors

_ATTENTION_NAMES = {"theta": "query", "phi": "key", "g": "value", "o_conv": "back"}
_PARTS = 4


def renamed(weights: Tensors) -> tuple[Layout, dict[str, Tensor]]:
    """Return the layout of a file's weights, and those under our names.

    The layout is the released one, with the latent entries, width and classes that the file has.

    Raises:
        LookupError: If a tensor is missing.
    """
    released = RELEASED["biggan_deep_256"]
    found = dict(_tensors(weights))
    latent, classes = found["embedding.weight"].shape
    width = found["synthesis.to_images.0.weight"].shape[0]
    return Layout(released.family, released.channels, released.size, latent, width, classes=classes), found


def _tensors(theirs: Tensors) -> Iterator[tuple[str, Tensor]]:
    yield "embedding.weight", theirs["embeddings.weight"]
    yield from _layer(theirs, "generator.gen_z", "synthesis.blocks.0.linear")
    for number in range(len(STEPS)):
        layer = number if number < ATTENTION else number + 1
        block = f"synthesis.blocks.{number + 1}"
        if number == ATTENTION:
            yield from _attention(theirs, f"generator.layers.{ATTENTION}", f"{block}.attention")
            block = f"{block}.residual"
        yield from _residual(theirs, f"generator.layers.{layer}", block)
    for name, statistic in (("mean", "running_means"), ("var", "running_vars")):
        yield f"synthesis.to_images.0.running_{name}", theirs[f"generator.bn.{statistic}"][-1]
    for name in ("weight", "bias"):
        yield f"synthesis.to_images.0.{name}", theirs[f"generator.bn.{name}"]
    for name, tensor in _layer(theirs, "generator.conv_to_rgb", "synthesis.to_images.2"):
        yield name, tensor[:CHANNELS]  # the rest is computed there, and not used


def _residual(theirs: Tensors, layer: str, block: str) -> Iterator[tuple[str, Tensor]]:
    for part in range(_PARTS):
        norm, ours = f"{layer}.bn_{part}", f"{block}.norms.{part}"
        yield f"{ours}.mean", theirs[f"{norm}.running_means"][-1]
        yield f"{ours}.variance", theirs[f"{norm}.running_vars"][-1]
        yield f"{ours}.scale.weight", _normalised(theirs, f"{norm}.scale")
        yield f"{ours}.offset.weight", _normalised(theirs, f"{norm}.offset")
        yield from _layer(theirs, f"{layer}.conv_{part}", f"{block}.convs.{part}")


def _attention(theirs: Tensors, layer: str, ours: str) -> Iterator[tuple[str, Tensor]]:
    for their_name, name in _ATTENTION_NAMES.items():
        yield f"{ours}.{name}.weight", _normalised(theirs, f"{layer}.snconv1x1_{their_name}")
    yield f"{ours}.gain", theirs[f"{layer}.gamma"]


def _layer(theirs: Tensors, layer: str, ours: str) -> Iterator[tuple[str, Tensor]]:
    yield f"{ours}.weight", _normalised(theirs, layer)
    yield f"{ours}.bias", theirs[f"{layer}.bias"]


def _normalised(theirs: Tensors, layer: str) -> Tensor:
    """Return a weight over its largest singular value, u W v (Miyato et al. 2018, arXiv 1802.05957).

    Older files hold u alone, from which a step of the power iteration gives v; others the outcome itself.
    """
    if f"{layer}.weight" in theirs:
        return theirs[f"{layer}.weight"]
    weight, left = theirs[f"{layer}.weight_orig"], theirs[f"{layer}.weight_u"]
    matrix = weight.flatten(1)
    right = theirs.get(f"{layer}.weight_v")
    if right is None:
        right = torch.nn.functional.normalize(matrix.T @ left, dim=0)
    return weight / (left @ matrix @ right)
