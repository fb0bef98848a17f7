"""Fitting latent vectors: once per image, before the client's shadow first imitates an attack on it."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.cards_shadowdef import ShadowDefConfig
from defenses.shadowdef.adam import Adam
from defenses.shadowdef.shadow import Shadow
from fl.types import ImageSpec

_HALVED_AT = (3 / 8, 5 / 8, 7 / 8)
"""The released code's steps 187, 312 and 437 of 500, as shares."""


def fit_latents(
    shadow: Shadow, images: Tensor, start: Tensor, *, config: ShadowDefConfig, image: ImageSpec
) -> Tensor:
    """Return latent vectors, `n x latent`, whose images come near the given ones, all fitted together.

    AdamW minimises each image's own mean squared error in the model's input space. After the warm-up an
    image whose error has risen `latent_patience` times in a row keeps its vector; the others go on.

    Args:
        shadow: The generator.
        images: `n x C x H x W` in [0, 1].
        start: First guesses.
        config: Steps and step size.
        image: Normalisation.
    """
    adam = Adam(config.latent_lr, config.latent_weight_decay)
    halvings = {int(share * config.latent_steps) for share in _HALVED_AT}
    uncleared = config.has("accumulated_gradients")
    truth = image.normalise(images)
    latents, summed = start.detach(), torch.zeros_like(start)
    rises = torch.zeros(len(images), dtype=torch.long, device=images.device)
    running = torch.ones_like(rises, dtype=torch.bool)
    previous = torch.full_like(start[:, 0], torch.inf)
    for step in range(config.latent_steps):
        if step in halvings:
            adam.lr /= 2
        leaf = latents.requires_grad_()
        drawn = image.normalise(shadow.images(shadow.styles(leaf)))
        errors = (drawn - truth).square().mean((1, 2, 3))
        (gradient,) = torch.autograd.grad(errors.sum(), leaf)
        summed = summed + gradient if uncleared else gradient
        rises = torch.where(errors.detach() > previous, rises + 1, 0)
        previous = errors.detach()
        running = running & ((rises < config.latent_patience) | (step < config.latent_warmup))
        if not bool(running.any()):
            break
        (moved,) = adam.step([leaf], [summed])
        latents = torch.where(running[:, None], moved, leaf.detach())
    return latents.detach()
