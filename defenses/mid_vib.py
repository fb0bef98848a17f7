"""MID: a variational information bottleneck between features and head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from defenses.base import ClientContext, ClientDefense, Defense
from defenses.cards_dependence import MidVibConfig
from defenses.latents import HEAD, Drawing, Latents, simulated_drawing
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
        return Encoded(model, self.config.bottleneck or max(model.head.in_features // 2, 1))

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


class Encoded(Classifier):
    """A classifier whose head sees latents.

    Args:
        model: The classifier; its head is dropped.
        size: Latents.
    """

    def __init__(self, model: Classifier, size: int) -> None:
        super().__init__()
        head = model.head
        del model.head
        self.classifier = model
        self.bottleneck = Encoder(head.in_features, size)
        self.head = nn.Linear(size, head.out_features, bias=head.bias is not None)

    def features(self, x: Tensor) -> Tensor:
        """Return the latents of the classifier's features."""
        encoded: Tensor = self.bottleneck(self.classifier.features(x))
        return encoded

    @property
    def blocks(self) -> Mapping[str, nn.Module]:
        """The classifier's."""
        return self.classifier.blocks

    @property
    def cam_layer(self) -> nn.Module | None:
        """The classifier's."""
        return self.classifier.cam_layer
