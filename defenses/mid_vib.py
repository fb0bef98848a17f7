"""MID: a variational information bottleneck between features and head."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from defenses.base import ClientContext, ClientDefense, Defense
from defenses.cards_dependence import MidVibConfig
from defenses.latents import HEAD, Bottlenecked, Drawing, Latents, simulated_drawing
from fl.models.base import Classifier
from fl.types import Observation, Wrapper

SHIFT = -5.0
"""Deviations are softplus(a - 5), small at the start; from the code released with Peng et al. 2022."""


@dataclass(frozen=True)
class MidVib(Defense[MidVibConfig]):
    """Give the head z ~ N(mu, sigma^2), drawn at every local step, and add beta KL to the loss.

    Source: Wang et al. 2021, arXiv 2009.05241, whose bound of the information that outputs hold of an image
    KL is: in nats, the mean over images of KL(N(mu, sigma^2) || N(0, 1)), summed over latents. Layers as
    released with Peng et al. 2022, arXiv 2206.05483. Whoever is not a client in training passes on mu.
    """

    def wrapper(self) -> Wrapper:
        """Name the bottleneck."""
        return Wrapper("mid_vib", self.config.resolved())

    def wrap_model(self, model: nn.Module) -> nn.Module:
        """Put the bottleneck, and a head of its size, in place of a classifier's head."""
        assert isinstance(model, Classifier)
        features, own = model.head.in_features, model.head
        size = self.config.bottleneck or max(features // 2, 1)
        encoder = Encoder(features, size)
        return Bottlenecked(model, encoder, nn.Linear(size, own.out_features, bias=own.bias is not None))

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that draws its latents."""
        return Drawing(self.config.beta)

    def simulated(self, context: ClientContext, observation: Observation) -> ClientDefense:
        """Return a client at the latents that the observation gives away, or at their means."""
        return simulated_drawing(self.config.beta, observation, HEAD)


class Encoder(nn.Module):
    """From features to latents.

    Args:
        features: D.
        size: K; the encoder is linear with a bias, D -> 2K.
    """

    def __init__(self, features: int, size: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(features, 2 * size)
        self.latents = Latents(SHIFT)

    def forward(self, features: Tensor) -> Tensor:
        """Return `n x size`."""
        encoded: Tensor = self.latents(self.encoder(features))
        return encoded
