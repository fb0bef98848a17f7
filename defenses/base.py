"""Defenses: what a client or the server does so that less leaks, and what an adaptive attacker makes of it.

A `Defense` is shared configuration; `for_client` and `for_server` give what one client or the server does.
Every hook has plain training as its default (`fl.hooks`), so a defense's file holds only what it changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fl.hooks import (
    Batch,
    ClientContext,
    ClientDefense,
    GuaranteeContext,
    PrivacySpent,
    ServerContext,
    ServerDefense,
    Step,
    Trainer,
)
from fl.specs import Config
from fl.types import Observation, Tensors, Wrapper

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "Batch",
    "ClientContext",
    "ClientDefense",
    "Defense",
    "GuaranteeContext",
    "PrivacySpent",
    "ServerContext",
    "ServerDefense",
    "Step",
    "Trainer",
]

ConfigT = TypeVar("ConfigT", bound=Config)
Params = Any
"""A pytree of tensors, which the engine stacks over lanes."""


@dataclass(frozen=True)
class Defense(Generic[ConfigT]):
    """A configured defense; pickles small. The defaults do nothing.

    Attributes:
        config: Its configuration.
    """

    config: ConfigT

    def wrapper(self) -> Wrapper | None:
        """Name the change to the architecture, if any."""
        return None

    def wrap_model(self, model: nn.Module) -> nn.Module:
        """Change the architecture (PRECODE, MID-VIB); the default leaves it alone."""
        return model

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return what one client does."""
        return ClientDefense()

    def for_server(self) -> ServerDefense:
        """Return what the server does."""
        return ServerDefense()

    def guarantee(self, context: GuaranteeContext) -> PrivacySpent | None:
        """Return the differential privacy spent, or None if the defense gives none."""
        return None

    def estimate(self, observation: Observation) -> Params:
        """Infer the defense's parameters from one observation, as an adaptive attacker would.

        Raises:
            NotImplementedError: If the defense has no mirror (its card says so).
        """
        raise NotImplementedError(f"{type(self).__name__} has no mirror")

    def mirror(self, params: Params, gradients: Tensors) -> Tensors:
        """Apply what the defense does after the gradient to one lane's gradients.

        Pure, differentiable and out of place, with no data-dependent shape and no Python branch on a value,
        so that the engine can vectorize it over lanes.

        Raises:
            NotImplementedError: If the defense has no mirror (its card says so).
        """
        raise NotImplementedError(f"{type(self).__name__} has no mirror")
