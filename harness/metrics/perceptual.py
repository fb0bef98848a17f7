"""LPIPS (Zhang et al. 2018, arXiv 1801.03924, equation 1) on AlexNet, as an embedding of single images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fl.errors import DataUnavailableError, UsageError
from harness.metrics.catalog import LPIPS_MIN_SIZE, LPIPS_UPSAMPLED_SIZE
from harness.metrics.image import upsample
from harness.metrics.pairs import Pairs, Unavailable, require
from harness.metrics.weights import Convolution, backbone_file, read_backbone, read_heads

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""From [-1, 1] to the inputs of the ImageNet weights (`lpips` 0.1.4, ScalingLayer)."""
LAYERS = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))
"""Stride and padding of the convolutions; before the second and third a 3 x 3 max-pool of stride 2."""
EPSILON = 1e-10
CHECK_DISTANCE = 0.51094
"""LPIPS of a horizontal and a vertical ramp (64 x 64 pixels) with the right weights."""


def lpips(pairs: Pairs) -> Tensor:
    """Return the LPIPS of each pair, `k`.

    Raises:
        NotApplicableError: If LPIPS cannot be had.
    """
    perceptual = require(pairs.instruments.perceptual)
    return (perceptual(pairs.truth) - perceptual(pairs.guess)).square().sum(1)


def lpips_size(images: Tensor) -> int | None:
    """Return the shorter side that `n x C x H x W` images are upsampled to for LPIPS, or None."""
    return LPIPS_UPSAMPLED_SIZE if min(images.shape[-2:]) < LPIPS_MIN_SIZE else None


class Perceptual:
    """Maps images so that the squared Euclidean distance of two vectors is the LPIPS of two images.

    LPIPS takes the squared difference of channel-normalised features, weights it per channel, averages over
    positions and sums over layers. The weights are not negative, so their roots can go to each image alone.
    """

    def __init__(self, backbone: tuple[Convolution, ...], heads: tuple[Tensor, ...]) -> None:
        """Take AlexNet's five convolutions and the five heads.

        Raises:
            UsageError: If they do not give the known distance of a fixed pair of images.
        """
        self._backbone = backbone
        self._roots = tuple(head.sqrt().view(-1, 1, 1) for head in heads)
        ramp = torch.linspace(0, 1, 64).expand(1, 64, 64)
        across, down = self(torch.stack([ramp, ramp.transpose(-2, -1)])).double()
        distance = (across - down).square().sum().item()
        if abs(distance - CHECK_DISTANCE) > 1e-3 * CHECK_DISTANCE:
            raise UsageError(
                f"expected LPIPS weights that give {CHECK_DISTANCE} for the check images, got {distance:.6f}"
            )

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return `n x d` float32 for `n x C x H x W` in [0, 1], C = 1 (repeated) or 3."""
        inputs = upsample(images, lpips_size(images)).expand(-1, 3, -1, -1)
        shift, scale = (inputs.new_tensor(values).view(3, 1, 1) for values in (SHIFT, SCALE))
        hidden = (2 * inputs - 1 - shift) / scale
        parts = []
        for index, (convolution, root) in enumerate(zip(self._backbone, self._roots, strict=True)):
            if index in (1, 2):
                hidden = F.max_pool2d(hidden, 3, stride=2)
            stride, padding = LAYERS[index]
            hidden = F.conv2d(hidden, convolution.weight, convolution.bias, stride, padding).relu()
            norm = hidden.square().sum(1, keepdim=True).sqrt() + EPSILON
            positions = hidden.shape[-2] * hidden.shape[-1]
            parts.append((hidden / norm * root / positions**0.5).flatten(1))
        return torch.cat(parts, dim=1)


def find_perceptual(*, fetch: bool = True) -> Perceptual | Unavailable:
    """Return LPIPS with its real weights, or why they cannot be had.

    Raises:
        UsageError: If weights were found, or named by `LEAKBENCH_LPIPS_WEIGHTS`, and are not the right ones.
    """
    try:
        path = backbone_file(fetch=fetch)
    except DataUnavailableError as error:
        return Unavailable(f"LPIPS: {error}")
    return Perceptual(read_backbone(path), read_heads())
