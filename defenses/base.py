"""Defenses: what a client or the server does so that less leaks, and what an adaptive attacker makes of it.

A `Defense` is shared configuration; `for_client` and `for_server` give what one client or the server does.
Every hook has plain training as its default (`fl.hooks`), so a defense's file holds only what it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from fl.types import Artifact, ModelState, Observation, PublicData, Tensors, Wrapper

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "AdversaryContext",
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
class AdversaryContext:
    """What an adaptive attacker has when it works out what a defense did to a batch.

    Attributes:
        observation: What it sees.
        rounds: Rounds of the federation, where schedules depend on them.
        public: Its own images, or None where the threat model grants none.
        artifacts: What the defense's public stages made, by the request's name; never a private one.
        build: From a model's state to the module, wrappers included, on the device.
        stream: A generator of this target alone, in the same state at every call.
    """

    observation: Observation
    rounds: int
    public: PublicData | None
    artifacts: Mapping[str, Artifact]
    build: Callable[[ModelState], nn.Module]
    stream: torch.Generator


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

    def simulated(self, context: ClientContext, observation: Observation) -> ClientDefense:
        """Return the client that an adaptive attacker simulates where it must, with what it has seen of it.

        By default that of `for_client`, which learns nothing from the observation.
        """
        return self.for_client(context)

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

    def unperturb(self, images: Tensor, labels: Tensor, context: AdversaryContext) -> Tensor:
        """Return the private batch, as an adaptive attacker works it out from the one that was trained on.

        For a defense that changes the batch by what the attacker can compute or expect, if not exactly.

        Args:
            images: The batch that was trained on, as the attack recovered it: `n x C x H x W`, private images
                being in [0, 1], but not clamped.
            labels: Its labels as the attacker knows or recovered them: `n` int64, or `n x outputs`.
            context: What else the attacker has.

        Returns:
            `n x C x H x W`, not clamped.

        Raises:
            NotImplementedError: If the defense has no such thing (its card says so).
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be taken out of a batch")
