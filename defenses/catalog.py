"""The built-in defenses: configurations and cards, read without torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_serializer, field_validator

from defenses import DEFENSES
from fl.cards import DefenseCard, NoiseBudget, Reference, Setting, StageRequest
from fl.specs import Config, NoConfig, Plugin, TrialSpec

CLIENT_HOOKS = ("sampler", "inspect", "perturb_batch", "loss", "gradients", "protect")
SERVER_HOOKS = ("visible", "per_update", "release")
MODEL_HOOKS = ("wrapper", "wrap_model")
HOOKS = frozenset(CLIENT_HOOKS + SERVER_HOOKS + MODEL_HOOKS)
"""What a defense may override that changes training or what is seen of it."""


class GaussianConfig(Config):
    """Gaussian noise on every entry of the update."""

    sigma: float = Field(1e-3, ge=0, description="standard deviation, in units of `scale`")
    scale: Literal["absolute", "relative"] = Field(
        "absolute",
        description="absolute: units of the gradient (a delta's noise is scaled by lr x local steps); "
        "relative: the root mean square of the update's own entries",
    )


class ClippingConfig(Config):
    """Clipping of the update's L2 norm over all tensors."""

    bound: float = Field(
        1.0,
        gt=0,
        description="largest norm, in units of the gradient (of a delta: times lr x local steps)",
    )


class PruningConfig(Config):
    """Zeroing of the smallest entries of each tensor."""

    ratio: float = Field(0.2, ge=0, le=1, description="share of each tensor's entries set to zero")
    variant: Literal["standard", "as_released"] = Field(
        "standard", description="as_released: the kept entries lose their sign, as in the released notebook"
    )


class Link(Config):
    """One defense of a chain, resolved.

    Attributes:
        name: A registered defense that is not a chain.
        version: Its card's version, filled in: a link's new version makes a new chain.
        config: Its configuration.
    """

    name: str
    version: int = Field(0, validate_default=True)
    config: Config = Field(default_factory=dict, validate_default=True)

    @field_validator("name")
    @classmethod
    def _name_is_registered(cls, name: str) -> str:
        if name not in DEFENSES:
            raise ValueError(DEFENSES.unknown(name))
        if name == "chain":
            raise ValueError("expected a defense, got another 'chain'; list its links here")
        return name

    @field_validator("version")
    @classmethod
    def _version_is_installed(cls, version: int, info: ValidationInfo) -> int:
        if "name" not in info.data:
            return version
        installed = DEFENSES.get(info.data["name"]).version
        if version not in (0, installed):
            raise ValueError(f"expected version {installed} of {info.data['name']!r}, got {version}")
        return installed

    @field_validator("config", mode="before")
    @classmethod
    def _config_is_the_cards(cls, config: object, info: ValidationInfo) -> object:
        if "name" not in info.data:
            return NoConfig()
        return DEFENSES.get(info.data["name"]).config.model_validate(config)

    @field_serializer("config")
    def _resolve(self, config: Config) -> dict[str, Any]:
        return config.resolved()

    @property
    def card(self) -> DefenseCard[Any]:
        """The card behind the name."""
        return DEFENSES.get(self.name)


class ChainConfig(Config):
    """Several defenses, each on what the one before it left."""

    links: tuple[Link, ...] = Field(description="defenses in the order in which they act")

    @field_validator("links")
    @classmethod
    def _links_compose(cls, links: tuple[Link, ...]) -> tuple[Link, ...]:
        if not links:
            raise ValueError("expected at least one link, got none")
        for hooks in ({"sampler"}, {"loss", "gradients"}):
            owners = [link.name for link in links if link.card.hooks & hooks]
            if len(owners) > 1:
                raise ValueError(
                    f"expected at most one link with its own {' or '.join(sorted(hooks))}, "
                    f"got {', '.join(owners)}: these do not compose"
                )
        return links


def hooks_of(plugin: Plugin) -> frozenset[str]:
    """Return the hooks that a configured defense overrides: its card's, or those of a chain's links."""
    if isinstance(plugin.config, ChainConfig):
        return frozenset[str]().union(*(link.card.hooks for link in plugin.config.links))
    return DEFENSES.get(plugin.name).hooks


def _none_budget(config: NoConfig) -> NoiseBudget:
    return NoiseBudget(field="", unit="", domain="none", stronger="higher", off=0.0, grid=(0.0,))


def _gaussian_budget(config: GaussianConfig) -> NoiseBudget:
    if config.scale == "relative":
        return NoiseBudget(
            field="sigma",
            unit="share of the update's root mean square",
            domain="update",
            stronger="higher",
            off=0.0,
            grid=(0.01, 0.1, 1.0, 10.0),
        )
    return NoiseBudget(
        field="sigma",
        unit="standard deviation of a gradient entry",
        domain="gradient",
        stronger="higher",
        off=0.0,
        grid=(1e-4, 1e-3, 1e-2, 1e-1),
    )


def _clipping_budget(config: ClippingConfig) -> NoiseBudget:
    return NoiseBudget(
        field="bound",
        unit="L2 norm of the gradient",
        domain="gradient",
        stronger="lower",
        off=None,  # a bound above the norm changes no bit, but no bound is above every norm
        grid=(10.0, 4.0, 1.0, 0.1),
    )


def _pruning_budget(config: PruningConfig) -> NoiseBudget:
    return NoiseBudget(
        field="ratio",
        unit="share of entries zeroed",
        domain="update",
        stronger="higher",
        off=0.0 if config.variant == "standard" else None,  # the variant drops signs even at 0
        grid=(0.2, 0.5, 0.8, 0.9, 0.99),
    )


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
    for link in config.links:
        reason = link.card.compatible(link.config, setting)
        if reason is None and setting.attacker == "adaptive" and not link.card.mirrored:
            reason = "it has no mirror for an adaptive attacker"
        if reason is not None:
            return f"link {link.name!r}: {reason}"
    return None


def _chain_stages(config: ChainConfig, spec: TrialSpec) -> list[StageRequest]:
    return [request for link in config.links for request in link.card.stages(link.config, spec)]


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

GAUSSIAN = DefenseCard(
    name="gaussian",
    version=1,
    summary="Independent Gaussian noise on every entry of the update.",
    config=GaussianConfig,
    implementation="defenses.gaussian:Gaussian",
    reference=Reference("Zhu, Liu and Han 2019, Deep Leakage from Gradients, arXiv 1906.08935, section 5.1"),
    noise_budget=_gaussian_budget,
    hooks=frozenset({"protect"}),
    mirrored=True,
)

CLIPPING = DefenseCard(
    name="clipping",
    version=1,
    summary="Scale the update down to a largest L2 norm over all tensors.",
    config=ClippingConfig,
    implementation="defenses.clipping:Clipping",
    reference=Reference(
        "Abadi et al. 2016, Deep Learning with Differential Privacy, arXiv 1607.00133, section 3.1"
    ),
    noise_budget=_clipping_budget,
    hooks=frozenset({"protect"}),
    mirrored=True,
)

PRUNING = DefenseCard(
    name="pruning",
    version=1,
    summary="Zero the smallest entries of each tensor.",
    config=PruningConfig,
    implementation="defenses.pruning:Pruning",
    reference=Reference("Zhu, Liu and Han 2019, Deep Leakage from Gradients, arXiv 1906.08935, section 5.2"),
    noise_budget=_pruning_budget,
    hooks=frozenset({"protect"}),
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
    mirrored=True,  # `compatible` refuses an adaptive attacker where a link has no mirror
    compatible=_chain_compatible,
    stages=_chain_stages,
)

CARDS: tuple[DefenseCard[Any], ...] = (NONE, GAUSSIAN, CLIPPING, PRUNING, CHAIN)
