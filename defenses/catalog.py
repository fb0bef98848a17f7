"""The built-in defenses: all cards, and what `none` and chains of them are; read without torch."""

from __future__ import annotations

from typing import Any, Literal

from defenses import DEFENSES
from defenses.cards_batch import (
    BATCH_CARDS,
    INPUT_NOISE,
    LABEL_SMOOTHING,
    MIXUP,
    InputNoiseConfig,
    LabelSmoothingConfig,
    MixupConfig,
)
from defenses.cards_chain import ChainConfig, Link
from defenses.cards_dependence import DEPENDENCE_CARDS
from defenses.cards_representation import REPRESENTATION_CARDS
from defenses.cards_shadowdef import SHADOWDEF_CARDS
from defenses.cards_update import (
    CLIPPING,
    FIXED_STEP,
    GAUSSIAN,
    LAPLACE,
    PRUNING,
    QUANTIZATION,
    SIGN,
    UPDATE_CARDS,
    ClippingConfig,
    FixedStepConfig,
    GaussianConfig,
    LaplaceConfig,
    PruningConfig,
    QuantizationConfig,
    SignConfig,
)
from fl.cards import DefenseCard, NoiseBudget, Setting, StageRequest
from fl.specs import Config, NoConfig, Plugin, TrialSpec

__all__ = [
    "CARDS",
    "CHAIN",
    "CLIENT_HOOKS",
    "CLIPPING",
    "FIXED_STEP",
    "GAUSSIAN",
    "HOOKS",
    "HOOKS_BEFORE_THE_UPDATE",
    "INPUT_NOISE",
    "LABEL_SMOOTHING",
    "LAPLACE",
    "MIXUP",
    "MODEL_HOOKS",
    "NONE",
    "PRUNING",
    "QUANTIZATION",
    "SERVER_HOOKS",
    "SIGN",
    "ChainConfig",
    "ClippingConfig",
    "FixedStepConfig",
    "GaussianConfig",
    "InputNoiseConfig",
    "LabelSmoothingConfig",
    "LaplaceConfig",
    "Link",
    "MixupConfig",
    "PruningConfig",
    "QuantizationConfig",
    "SignConfig",
    "adaptation",
    "after_the_batch",
    "hooks_of",
    "is_mirrored",
    "is_simulated",
    "unadaptable",
    "unperturbs",
]

Adaptation = Literal["mirror", "unperturb", "simulation", "none"]

CLIENT_HOOKS = ("sampler", "inspect", "perturb_batch", "loss", "gradients", "protect")
SERVER_HOOKS = ("visible", "per_update", "release")
MODEL_HOOKS = ("wrapper", "wrap_model")
HOOKS = frozenset(CLIENT_HOOKS + SERVER_HOOKS + MODEL_HOOKS)
"""What a defense may override that changes training or what is seen of it."""
HOOKS_BEFORE_THE_UPDATE = frozenset(
    {"wrapper", "wrap_model", "sampler", "perturb_batch", "loss", "gradients"}
)
"""Hooks whose effect an adaptive attacker has by simulating the client, without a mirror."""


def hooks_of(plugin: Plugin) -> frozenset[str]:
    """Return the hooks that a configured defense overrides: its card's, or those of a chain's links."""
    if isinstance(plugin.config, ChainConfig):
        return frozenset[str]().union(*(link.card.hooks for link in plugin.config.links))
    return DEFENSES.get(plugin.name).hooks


def adaptation(card: DefenseCard[Any], config: Config | None = None) -> Adaptation:
    """Return how an adaptive attacker accounts for a defense (for a chain, each of its links).

    Args:
        card: The defense.
        config: Its configuration, where its ways differ between them.
    """
    if card.mirrored and (config is None or card.unmirrored(config) is None):
        return "mirror"
    if card.unperturbs:
        return "unperturb"
    return "simulation" if card.hooks & HOOKS_BEFORE_THE_UPDATE else "none"


def unadaptable(card: DefenseCard[Any], config: Config) -> str | None:
    """Return why an adaptive attacker has no way to account for a configured defense."""
    if adaptation(card, config) != "none":
        return None
    reason = card.unmirrored(config)
    return "it has no mirror for an adaptive attacker" + (f": {reason}" if reason else "")


def is_simulated(plugin: Plugin) -> bool:
    """Return whether an adaptive attacker must simulate the client under a configured defense.

    So it is unless there is a mirror or `unperturb`; a chain needs one of them for every link.
    """
    return bool(_ways(plugin) - {"mirror", "unperturb"})


def is_mirrored(plugin: Plugin) -> bool:
    """Return whether an adaptive attacker gets a configured defense's mirror."""
    return not is_simulated(plugin) and "mirror" in _ways(plugin)


def unperturbs(plugin: Plugin) -> bool:
    """Return whether an adaptive attacker takes a configured defense, or part of a chain, out of a batch."""
    return not is_simulated(plugin) and "unperturb" in _ways(plugin)


def after_the_batch(plugin: Plugin) -> Plugin | None:
    """Return what `unperturb` leaves of a defense to its mirror and the simulated client, if anything."""
    if not isinstance(plugin.config, ChainConfig):
        return None
    kept = tuple(link for link in plugin.config.links if not link.card.unperturbs)
    return Plugin(plugin.name, plugin.version, ChainConfig(links=kept)) if kept else None


def _ways(plugin: Plugin) -> set[Adaptation]:
    if isinstance(plugin.config, ChainConfig):
        return {adaptation(link.card, link.config) for link in plugin.config.links}
    return {adaptation(DEFENSES.get(plugin.name), plugin.config)}


def _none_budget(config: NoConfig) -> NoiseBudget:
    return NoiseBudget(field="", unit="", domain="none", stronger="higher", off=0.0, grid=(0.0,))


def _chain_budget(config: ChainConfig) -> NoiseBudget:
    link = config.links[-1]
    budget = link.card.noise_budget(link.config)
    return NoiseBudget(
        field=f"links.-1.config.{budget.field}" if budget.field else "",
        unit=budget.unit,
        domain=budget.domain,
        stronger=budget.stronger,
        off=None,  # the links before the last still act
        grid=budget.grid,
    )


def _chain_compatible(config: ChainConfig, setting: Setting) -> str | None:
    ways = [adaptation(link.card, link.config) for link in config.links]
    for link, way in zip(config.links, ways, strict=True):
        reason = link.card.compatible(link.config, setting)
        if reason is None and setting.attacker == "adaptive":
            reason = unadaptable(link.card, link.config)
            if way == "simulation" and "unperturb" in ways:
                reason = (
                    "an adaptive attacker cannot simulate it where it takes another link out of the batch"
                )
        if reason is not None:
            return f"link {link.name!r}: {reason}"
    return None


def _chain_stages(config: ChainConfig, spec: TrialSpec) -> list[StageRequest]:
    return [request for link in config.links for request in link.stages(spec)]


NONE = DefenseCard(
    name="none",
    version=1,
    summary="No defense: the update is sent as it is.",
    config=NoConfig,
    implementation="defenses.none:NoDefense",
    noise_budget=_none_budget,
    hooks=frozenset(),
    mirrored=True,
)

CHAIN = DefenseCard(
    name="chain",
    version=1,
    summary="Several defenses in turn; the noise budget is that of the last.",
    config=ChainConfig,
    implementation="defenses.chain:Chain",
    noise_budget=_chain_budget,
    hooks=HOOKS,  # what its links may override; `hooks_of` narrows it to those of a configuration
    mirrored=True,  # where its links are: `is_mirrored`
    unperturbs=True,  # likewise: `unperturbs`
    compatible=_chain_compatible,
    stages=_chain_stages,
)

CARDS: tuple[DefenseCard[Any], ...] = (
    NONE,
    *UPDATE_CARDS,
    *BATCH_CARDS,
    *REPRESENTATION_CARDS,
    *DEPENDENCE_CARDS,
    *SHADOWDEF_CARDS,
    CHAIN,
)
