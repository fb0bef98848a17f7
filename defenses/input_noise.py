"""Gaussian noise on the training images."""

from __future__ import annotations

from dataclasses import dataclass, replace

from defenses.base import Batch, ClientContext, ClientDefense, Defense, Step
from defenses.cards_batch import InputNoiseConfig
from defenses.gaussian import standard_normal


@dataclass(frozen=True)
class InputNoise(Defense[InputNoiseConfig]):
    """Train on images in [0, 1] with N(0, sigma^2) added to every pixel, anew at every step."""

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that trains on noisy images."""
        return _NoisyImages(self.config)


class _NoisyImages(ClientDefense):
    def __init__(self, config: InputNoiseConfig) -> None:
        self._config = config

    def perturb_batch(self, step: Step, batch: Batch) -> Batch:
        # An attacker who differentiates looks for the images that were trained on, noise included; noise of
        # its own would only come on top.
        if self._config.sigma == 0 or step.trainer.differentiable:
            return batch
        noisy = batch.images + self._config.sigma * standard_normal(batch.images, step.stream)
        return replace(batch, images=noisy.clamp(0, 1) if self._config.clamp else noisy)
