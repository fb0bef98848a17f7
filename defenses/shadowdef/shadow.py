"""A client's shadow: the public generator with a synthesis network of its own."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from defenses.cards_shadowdef import ShadowDefConfig
from fl.generators.architecture import Generator, initialise
from fl.generators.stage import load
from fl.models.initialise import normal
from fl.seeds import Streams
from fl.types import Artifact, Tensors

_TRANSPOSED_STD = 0.02
"""Radford et al. 2016, arXiv 1511.06434, section 3."""


class Shadow:
    """A generator whose mapping is public and whose synthesis network is private; nothing is written to it.

    Args:
        generator: The public generator.
        weights: Of the synthesis network, by parameter name; None for the generator's own.

    Attributes:
        weights: As given, on the generator's device.
    """

    def __init__(self, generator: Generator, weights: Tensors | None = None) -> None:
        self._generator = generator
        own = {name: p.detach() for name, p in generator.synthesis.named_parameters()}
        self.weights: Tensors = own
        if weights is not None:
            self.weights = {name: weights[name].to(tensor.device) for name, tensor in own.items()}

    def having(self, weights: Tensors | None) -> Shadow:
        """Return the same generator under other weights; None for its own."""
        return Shadow(self._generator, weights)

    @property
    def latent(self) -> int:
        """Entries of a latent vector."""
        return self._generator.latent

    def styles(self, latents: Tensor) -> Tensor:
        """Map latent vectors to style vectors, both `n x latent`."""
        styles: Tensor = self._generator.mapping(latents)
        return styles

    def images(self, styles: Tensor, weights: Tensors | None = None) -> Tensor:
        """Return images, `n x C x H x W` in [0, 1], under the shadow's weights or others."""
        used = self.weights if weights is None else weights
        images: Tensor = torch.func.functional_call(self._generator.synthesis, dict(used), (styles,))
        return images


def public_shadow(
    artifact: Artifact, config: ShadowDefConfig, streams: Streams, device: torch.device
) -> Shadow:
    """Return the shadow that everybody starts from: the public generator.

    Args:
        artifact: Of the generator's stage.
        config: As released, its weights are drawn anew and not the stage's.
        streams: Of the client, for that.
        device: Where to compute.
    """
    generator = load(artifact, device)
    if config.has("random_generator"):
        generator = random_generator(generator, streams.torch("shadow_weights"))
    return Shadow(generator)


def random_generator(generator: Generator, stream: torch.Generator) -> Generator:
    """Return a generator of the same layout with weights drawn anew."""
    drawn = copy.deepcopy(generator)
    initialise(drawn, stream)
    for layer in drawn.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            normal(layer.weight, stream, std=_TRANSPOSED_STD)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
    return drawn
