"""LPIPS (Zhang et al. 2018, arXiv 1801.03924, equation 1), as an embedding of single images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fl.errors import DataUnavailableError, UsageError
from harness.metrics.catalog import LPIPS_MIN_SIZE, LPIPS_UPSAMPLED_SIZE
from harness.metrics.image import upsample
from harness.metrics.networks import ALEXNET, Network
from harness.metrics.pairs import Embedding, Pairs, Unavailable, require
from harness.metrics.weights import Convolution, backbone_file, read_backbone, read_heads

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""From [-1, 1] to the inputs of the ImageNet weights (`lpips` 0.1.4, ScalingLayer)."""
EPSILON = 1e-10
AT_ONCE = 8
"""Pairs whose VGG-16 embeddings are held at once: each has half a million numbers at 64 pixels."""


def lpips(pairs: Pairs) -> Tensor:
    """Return the LPIPS of each pair on AlexNet, `k`.

    Raises:
        NotApplicableError: If it cannot be had.
    """
    return pairs.lpips


def lpips_vgg(pairs: Pairs) -> Tensor:
    """Return the LPIPS of each pair on VGG-16, `k`.

    Raises:
        NotApplicableError: If it cannot be had.
    """
    embedding = require(pairs.instruments.perceptual_vgg)
    parts = [slice(start, start + AT_ONCE) for start in range(0, len(pairs.truth), AT_ONCE)]
    return torch.cat([distance(embedding, pairs.truth[part], pairs.guess[part]) for part in parts])


def distance(embedding: Embedding, truth: Tensor, guess: Tensor) -> Tensor:
    """Return the squared distance of the embeddings of each of `k x C x H x W` pairs, `k`."""
    return (embedding(truth) - embedding(guess)).square().sum(1)


def lpips_size(images: Tensor) -> int | None:
    """Return the shorter side that `n x C x H x W` images are upsampled to for LPIPS, or None."""
    return LPIPS_UPSAMPLED_SIZE if min(images.shape[-2:]) < LPIPS_MIN_SIZE else None


class Perceptual:
    """Maps images so that the squared Euclidean distance of two vectors is the LPIPS of two images.

    LPIPS takes the squared difference of channel-normalised features, weights it per channel, averages over
    positions and sums over layers. The weights are not negative, so their roots can go to each image alone.
    """

    def __init__(
        self, backbone: tuple[Convolution, ...], heads: tuple[Tensor, ...], network: Network = ALEXNET
    ) -> None:
        """Take a network's convolutions and the five heads.

        Raises:
            UsageError: If they do not give the known distance of a fixed pair of images.
        """
        self._network = network
        self._backbone = backbone
        self._roots = tuple(head.sqrt().view(-1, 1, 1) for head in heads)
        ramp = torch.linspace(0, 1, 64).expand(1, 64, 64)
        across, down = self(torch.stack([ramp, ramp.transpose(-2, -1)])).double()
        found, expected = (across - down).square().sum().item(), network.check_distance
        if abs(found - expected) > 1e-3 * expected:
            raise UsageError(
                f"expected LPIPS weights of {network.name} that give {expected} for the check images, "
                f"got {found:.6f}"
            )

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return `n x d` float32 for `n x C x H x W` in [0, 1], C = 1 (repeated) or 3."""
        inputs = upsample(images, lpips_size(images)).expand(-1, 3, -1, -1)
        shift, scale = (inputs.new_tensor(values).view(3, 1, 1) for values in (SHIFT, SCALE))
        hidden = (2 * inputs - 1 - shift) / scale
        parts: list[Tensor] = []
        for layer, convolution in zip(self._network.layers, self._backbone, strict=True):
            if layer.pool is not None:
                hidden = F.max_pool2d(hidden, layer.pool, stride=2)
            hidden = F.conv2d(hidden, *convolution, layer.stride, layer.padding).relu()
            if layer.compared:
                norm = hidden.square().sum(1, keepdim=True).sqrt() + EPSILON
                positions = hidden.shape[-2] * hidden.shape[-1]
                parts.append((hidden / norm * self._roots[len(parts)] / positions**0.5).flatten(1))
        return torch.cat(parts, dim=1)


def find_perceptual(network: Network = ALEXNET, *, fetch: bool = True) -> Perceptual | Unavailable:
    """Return LPIPS on a network with its real weights, or why they cannot be had.

    Raises:
        UsageError: If weights were found, or named by its environment variable, and are not the right ones.
    """
    try:
        path = backbone_file(network, fetch=fetch)
    except DataUnavailableError as error:
        return Unavailable(f"LPIPS: {error}")
    return Perceptual(read_backbone(path, network), read_heads(network), network)
