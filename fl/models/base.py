"""What every classifier of the zoo offers beyond `nn.Module`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fl.models.initialise import pytorch_default


class Classifier(nn.Module, ABC):
    """A body that computes features and a linear head: `forward(x) == head(features(x))`.

    A subclass assigns `head` and must not change the output of a layer in place.

    Attributes:
        head: The last layer, from `d` features to the logits.
    """

    head: nn.Linear

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return the head's input, `n x d`, for normalised images, `n x C x H x W`."""

    @property
    @abstractmethod
    def blocks(self) -> Mapping[str, nn.Module]:
        """The hidden layers whose outputs count as the network's representations, by name, in order."""

    @property
    def cam_layer(self) -> nn.Module | None:
        """The last layer with a spatial output (for Grad-CAM), or None."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, `n x outputs`, for normalised images, `n x C x H x W`."""
        logits: Tensor = self.head(self.features(x))
        return logits

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights from `generator`, in the order of the modules; by default as PyTorch does."""
        for module in self.modules():
            pytorch_default(module, generator)


def out_of_place(module: nn.Module) -> None:
    """Let no layer overwrite its input: attacks and defenses read layers' inputs and outputs."""
    for layer in module.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
