"""PRECODE: a variational bottleneck between features and head."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from defenses.base import ClientContext, ClientDefense, Defense
from defenses.cards_representation import PrecodeConfig
from defenses.latents import BOTTLENECK, Bottlenecked, Drawing, Latents, simulated_drawing
from fl.models.base import Classifier
from fl.types import Observation, Wrapper

DECODER = f"{BOTTLENECK}.decoder"
"""The layer that takes the latents."""


@dataclass(frozen=True)
class Precode(Defense[PrecodeConfig]):
    """Pass features through z ~ N(mu, sigma^2), drawn at every local step, and add beta KL to the loss.

    Source: Scheliga et al. 2022, arXiv 2108.04725, section 3. KL, in nats, is the mean over images of
    KL(N(mu, sigma^2) || N(0, 1)), summed over latents. Whoever is not a client in training passes on mu.
    """

    def wrapper(self) -> Wrapper:
        """Name the bottleneck."""
        return Wrapper("precode", self.config.resolved())

    def wrap_model(self, model: nn.Module) -> nn.Module:
        """Put the bottleneck before the head of a classifier."""
        assert isinstance(model, Classifier)
        head = model.head
        return Bottlenecked(model, Bottleneck(head.in_features, self.config.bottleneck), head)

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that draws its latents."""
        return Drawing(self.config.beta)

    def simulated(self, context: ClientContext, observation: Observation) -> ClientDefense:
        """Return a client at the latents that the observation gives away, or at their means."""
        return simulated_drawing(self.config.beta, observation, DECODER)


class Bottleneck(nn.Module):
    """From features to features of the same number by way of latents.

    Args:
        features: D.
        size: K; the encoder is D -> 2K, the decoder K -> D, both linear with a bias.
    """

    def __init__(self, features: int, size: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(features, 2 * size)
        self.latents = Latents()
        self.decoder = nn.Linear(size, features)

    def forward(self, features: Tensor) -> Tensor:
        """Return `n x features`."""
        decoded: Tensor = self.decoder(self.latents(self.encoder(features)))
        return decoded
