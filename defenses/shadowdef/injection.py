"""From the noise map to the noise: steered away from what the classifier needs, scaled, and placed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from defenses.cards_shadowdef import Placement, ShadowDefConfig


def attenuation(config: ShadowDefConfig, round_: int, rounds: int) -> float:
    """Return alpha of a round: round_ / rounds, kept between its bounds."""
    return min(config.attenuation_max, max(config.attenuation_min, round_ / rounds))


def peak(config: ShadowDefConfig, round_: int, rounds: int) -> float:
    """Return rho of a round: an image's largest noise as a share of its largest value."""
    return config.noise_rescale * math.exp(config.noise_increase * round_ / rounds)


def salient(cam: Tensor, share: float) -> Tensor:
    """Return class activation maps, `n x H x W`, with all but the given share of largest pixels set to 0."""
    pixels = cam.flatten(1)
    kept = max(1, round(share * pixels.shape[1]))
    threshold = pixels.topk(kept, 1).values[:, -1:]
    return torch.where(pixels >= threshold, pixels, torch.zeros_like(pixels)).view(cam.shape)


def steer(noise: Tensor, saliency: Tensor, alpha: float) -> Tensor:
    """Return sign(N) max(|N| - alpha |N| P / max P, 0): weaker where P is large, never stronger or flipped.

    Args:
        noise: N, `n x C x H x W`.
        saliency: P, `n x H x W`, not negative; an image without any saliency keeps its noise.
        alpha: Attenuation where P is largest, in [0, 1].
    """
    largest = saliency.amax((1, 2), keepdim=True)
    relative = saliency / torch.where(largest > 0, largest, torch.ones_like(largest))
    magnitude = noise.abs()
    return noise.sign() * (magnitude - alpha * magnitude * relative.unsqueeze(1)).clamp(min=0)


def steer_flat(noise: Tensor, saliency: Tensor, alpha: float, *, temperature: float) -> Tensor:
    """Return what the released code does instead: N - alpha sign(N) P, P = softmax(saliency / temperature).

    P is nearly uniform and about as large as N, so this lowers all noise by the same amount, below 0 where
    there was little.
    """
    spread = torch.softmax(saliency.flatten(1) / temperature, 1).view(saliency.shape)
    return noise - alpha * noise.sign() * spread.unsqueeze(1)


def rescale(noise: Tensor, inputs: Tensor, share: float) -> Tensor:
    """Return noise, `n x C x H x W`, scaled so that an image's largest one is `share` of its largest value.

    Args:
        noise: Steered noise.
        inputs: The images in the model's input space, in which the noise is measured.
        share: rho.
    """
    brightest, largest = inputs.amax((1, 2, 3), keepdim=True), noise.amax((1, 2, 3), keepdim=True)
    factor: Tensor = (brightest / torch.where(largest == 0, torch.ones_like(largest), largest) * share).abs()
    return factor * noise


def place(noise: Tensor, placement: Placement, stream: torch.Generator) -> Tensor:
    """Return noise of the same energy for every image, `n x C x H x W`, put where `placement` says.

    Args:
        noise: As computed, in the units in which the energy counts.
        placement: `map`: there. `gaussian`: white Gaussian noise, scaled. `permuted`: its pixels in random
            order, the same for all channels of an image.
        stream: Draws, except for `map`.
    """
    if placement == "map":
        return noise
    if placement == "permuted":
        pixels = noise.shape[2] * noise.shape[3]
        orders = torch.stack([torch.randperm(pixels, generator=stream) for _ in noise])
        orders = orders.to(noise.device).unsqueeze(1).expand(-1, noise.shape[1], -1)
        return noise.flatten(2).gather(2, orders).view(noise.shape)
    white = torch.randn(noise.shape, generator=stream).to(noise).double()
    ratio = _norms(noise.double()) / _norms(white)
    return (white * ratio).to(noise.dtype)


def _norms(images: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(images, dim=(1, 2, 3), keepdim=True)
    return norms
