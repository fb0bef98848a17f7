"""Configurations and cards of the defenses that change the head's input, read without torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fl.cards import DefenseCard, NoiseBudget, Reference
from fl.specs import Config


class SoteriaConfig(Config):
    """Gradients without the features that follow the image most closely for their size."""

    percent: float = Field(80.0, ge=0, le=100, description="percent of the features that are pruned")
    variant: Literal["original", "ggl"] = Field(
        "original",
        description="original: every gradient is that of the pruned features, image by image; ggl: only the "
        "head's weight gradient loses columns, the same for the batch",
    )


class PrecodeConfig(Config):
    """A variational bottleneck between features and head."""

    beta: float = Field(1e-3, ge=0, description="weight of the latents' divergence from N(0, 1) in the loss")
    bottleneck: int = Field(256, ge=1, le=65536, description="latents per image")


def _soteria_budget(config: SoteriaConfig) -> NoiseBudget:
    return NoiseBudget(
        field="percent",
        unit="percent of features pruned",
        domain="gradient",
        stronger="higher",
        off=0.0,
        grid=(10.0, 20.0, 40.0, 80.0),
    )


def _soteria_unmirrored(config: SoteriaConfig) -> str | None:
    if config.variant == "ggl":
        return None
    return (
        "pruned features change what is passed back to every layer, which no gradient of whole ones tells; "
        "the simulated client prunes those of its guess: the ones seen to be pruned where there is one "
        "image, else by the same rule"
    )


def bottleneck_budget(config: Config) -> NoiseBudget:
    """Return the noise budget of a variational bottleneck between features and head."""
    return NoiseBudget(
        field="beta",
        unit="weight of the latents' divergence from N(0, 1)",
        domain="model",
        stronger="higher",
        off=None,  # the bottleneck is there, and draws, at every weight
        grid=(1e-4, 1e-3, 1e-2, 1e-1),
    )


def _precode_unmirrored(config: PrecodeConfig) -> str:
    return (
        "the latents are drawn and their divergence is added before the gradient; the simulated client takes "
        "one image's latents from the decoder's gradient, and else their means, without the gradients that "
        "depend on the draw"
    )


SOTERIA = DefenseCard(
    name="soteria",
    version=1,
    summary="Prune the features that follow the image most closely for their size.",
    config=SoteriaConfig,
    implementation="defenses.soteria:Soteria",
    reference=Reference(
        "Sun et al. 2021, Soteria: Provable Defense against Privacy Leakage in Federated Learning from "
        "Representation Perspective, CVPR, arXiv 2012.06043; variant ggl from Li et al. 2022, Auditing "
        "Privacy Defenses in Federated Learning via Generative Gradient Leakage, CVPR, arXiv 2203.15696"
    ),
    noise_budget=_soteria_budget,
    hooks=frozenset({"gradients"}),
    mirrored=True,
    unmirrored=_soteria_unmirrored,
)

PRECODE = DefenseCard(
    name="precode",
    version=1,
    summary="A variational bottleneck between features and head.",
    config=PrecodeConfig,
    implementation="defenses.precode:Precode",
    reference=Reference(
        "Scheliga, Maeder, Seeland 2022, PRECODE: A Generic Model Extension to Prevent Deep Gradient "
        "Leakage, WACV, arXiv 2108.04725"
    ),
    noise_budget=bottleneck_budget,
    hooks=frozenset({"wrapper", "wrap_model", "loss"}),
    mirrored=False,
    unmirrored=_precode_unmirrored,
)

REPRESENTATION_CARDS: tuple[DefenseCard[Any], ...] = (SOTERIA, PRECODE)
