"""Quantization of the update to few evenly spaced levels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from defenses.base import ClientContext, ClientDefense, Defense, Step
from defenses.cards_update import QuantizationConfig
from defenses.straight_through import straight_through
from fl.types import Observation, Tensors, Update


@dataclass(frozen=True)
class Quantization(Defense[QuantizationConfig]):
    """Replace g by s clip(round(g / s), -L, L), L = 2^(bits-1) - 1 and s = max |g| / L.

    There are 2 L + 1 levels, 0 among them. Stochastic rounding is floor(g / s + u), u uniform in [0, 1), and
    keeps the mean, after Alistarh et al. 2017 (QSGD, arXiv 1610.02132, section 3.1), who space the levels by
    the norm instead of the largest entry.
    """

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client that quantizes its update."""
        return _Quantize(self.config)

    def estimate(self, observation: Observation) -> Tensors:
        """Return the spacing by parameter name, scalars: the largest entry keeps its value."""
        return _spacings(observation.update.tensors, self.config)

    def mirror(self, params: Tensors, gradients: Tensors) -> Tensors:
        """Round as the client did, straight through; stochastic rounding has mean 0 error and is left out."""
        if self.config.rounding == "stochastic":
            return gradients
        return {name: _nearest(tensor, params[name], self.config) for name, tensor in gradients.items()}


class _Quantize(ClientDefense):
    def __init__(self, config: QuantizationConfig) -> None:
        self._config = config

    def protect(self, update: Update, step: Step) -> Update:
        spacings = _spacings(update.tensors, self._config)
        rounded = {
            name: _nearest(tensor, spacings[name], self._config)
            if self._config.rounding == "nearest"
            else _stochastic(tensor, spacings[name], self._config, step.stream)
            for name, tensor in update.tensors.items()
        }
        return replace(update, tensors=rounded)


def _top(config: QuantizationConfig) -> int:
    """Return the highest level, L."""
    return (1 << config.bits - 1) - 1


def _spacings(tensors: Tensors, config: QuantizationConfig) -> dict[str, Tensor]:
    """Return the distance of neighbouring levels by name, scalars."""
    largest = {name: tensor.abs().max() for name, tensor in tensors.items()}
    if config.scope == "global":
        largest = dict.fromkeys(largest, torch.stack(list(largest.values())).max())
    return {name: value / _top(config) for name, value in largest.items()}


def _nearest(tensor: Tensor, spacing: Tensor, config: QuantizationConfig) -> Tensor:
    return _on_levels(tensor, _in_spacings(tensor, spacing).round(), spacing, config)


def _stochastic(
    tensor: Tensor, spacing: Tensor, config: QuantizationConfig, stream: torch.Generator
) -> Tensor:
    uniform = torch.rand(tensor.shape, generator=stream, dtype=tensor.dtype).to(tensor.device)
    return _on_levels(tensor, (_in_spacings(tensor, spacing) + uniform).floor(), spacing, config)


def _in_spacings(tensor: Tensor, spacing: Tensor) -> Tensor:
    """Finite or infinite but never NaN, also for a tensor of zeros."""
    return tensor / spacing.to(tensor).clamp_min(torch.finfo(tensor.dtype).tiny)


def _on_levels(tensor: Tensor, level: Tensor, spacing: Tensor, config: QuantizationConfig) -> Tensor:
    top = _top(config)
    return straight_through(level.clamp(-top, top) * spacing.to(tensor), tensor)
