"""Gaussian noise on the update."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from defenses.base import ClientContext, ClientDefense, Defense, Step
from defenses.catalog import GaussianConfig
from defenses.norms import gradient_unit, root_mean_square
from fl.types import Observation, Tensors, Update

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Gaussian(Defense[GaussianConfig]):
    """Add N(0, sigma^2) to every entry (Zhu et al. 2019, arXiv 1906.08935, section 5.1).

    There is no clipping and no privacy accounting here. Noise of known variance does not change which images
    fit best in least squares, so an adaptive attacker has nothing to gain from adding noise of its own, and
    the mirror is the identity.
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that adds noise to its update."""
        return _Noise(self.config, gradient_unit(context))

    def estimate(self, observation: Observation) -> Tensors:
        """Return no parameters: the best answer to additive noise does not depend on them."""
        return {}

    def mirror(self, params: Tensors, gradients: Tensors) -> Tensors:
        """Return the gradients themselves."""
        return gradients


class _Noise(ClientDefense):
    def __init__(self, config: GaussianConfig, unit: float) -> None:
        self._config = config
        self._unit = unit

    def protect(self, update: Update, step: Step) -> Update:
        if self._config.sigma == 0:
            return update
        scale = root_mean_square(update.tensors) if self._config.scale == "relative" else self._unit
        noisy = {
            name: tensor + self._config.sigma * scale * _standard_normal(tensor, step.stream)
            for name, tensor in update.tensors.items()
        }
        return replace(update, tensors=noisy)


def _standard_normal(like: Tensor, stream: torch.Generator) -> Tensor:
    """Draw on the CPU, so that the noise is the same on every device."""
    import torch

    return torch.randn(like.shape, generator=stream, dtype=like.dtype).to(like.device)
