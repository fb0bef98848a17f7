"""ShadowDef as a defense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from defenses.base import AdversaryContext, ClientContext, ClientDefense, Defense
from defenses.cards_shadowdef import ShadowDefConfig
from defenses.shadowdef.adversary import unperturb
from defenses.shadowdef.client import ShadowClient

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ShadowDef(Defense[ShadowDefConfig]):
    """Train on images with noise where a private generator reconstructs them well (`defenses.shadowdef`)."""

    def for_client(self, context: ClientContext) -> ClientDefense:
        """Return a client with a shadow of its own."""
        return ShadowClient(self.config, context)

    def unperturb(self, images: Tensor, labels: Tensor, context: AdversaryContext) -> Tensor:
        """Return the private batch as an attacker with the same public generator works it out."""
        return unperturb(self.config, images, labels, context)
