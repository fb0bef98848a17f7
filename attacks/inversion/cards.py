"""The cards of all attacks on a global model, read without torch."""

from __future__ import annotations

from typing import Any

from attacks.inversion.cards_gmi import CARDS as GMI_CARDS
from attacks.inversion.cards_kedmi import CARDS as KEDMI_CARDS
from attacks.inversion.cards_plgmi import CARDS as PLGMI_CARDS
from attacks.inversion.cards_random_prior import CARDS as RANDOM_PRIOR_CARDS
from attacks.inversion.cards_vmi import CARDS as VMI_CARDS
from fl.cards import AttackCard

INVERSION_CARDS: tuple[AttackCard[Any], ...] = (
    *GMI_CARDS,
    *KEDMI_CARDS,
    *PLGMI_CARDS,
    *VMI_CARDS,
    *RANDOM_PRIOR_CARDS,
)
