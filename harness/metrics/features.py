"""How far apart two images are for the observed model itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.metrics.pairs import Pairs, Unavailable, require

if TYPE_CHECKING:
    from torch import nn

    from fl.types import ImageSpec


def feature_distance(pairs: Pairs) -> Tensor:
    """Return the Euclidean distance of penultimate features, `k`.

    Raises:
        NotApplicableError: If the observed model offers no features.
    """
    features = require(pairs.instruments.features)
    return (features(pairs.truth) - pairs.guess_features).square().sum(1).sqrt()


def mse_r(pairs: Pairs) -> Tensor:
    """Return the mean squared difference of penultimate features, `k`.

    Raises:
        NotApplicableError: If the observed model offers no features.
    """
    features = require(pairs.instruments.features)
    return (features(pairs.truth) - pairs.guess_features).square().mean(1)


class PenultimateFeatures:
    """The input of a classifier's head, as a function of images."""

    def __init__(self, model: nn.Module, image: ImageSpec) -> None:
        """Take a model of the zoo for this purpose alone: it is put into evaluation mode."""
        self._model = model.eval()
        self._image = image
        self._device = next(model.parameters()).device

    def __call__(self, images: Tensor) -> Tensor:
        """Return `n x d` on the CPU for `n x C x H x W` in [0, 1]."""
        with torch.inference_mode():
            features: Tensor = self._model.features(self._image.normalise(images.to(self._device)))  # type: ignore[operator]
            return features.flatten(1).cpu()


def penultimate_features(model: nn.Module, image: ImageSpec) -> PenultimateFeatures | Unavailable:
    """Return the features of the observed model, or why it has none to offer."""
    if not callable(getattr(model, "features", None)):
        return Unavailable(f"the observed model ({type(model).__name__}) does not offer features")
    return PenultimateFeatures(model, image)
