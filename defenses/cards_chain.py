"""What a chain of defenses is configured with, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field, ValidationInfo, field_serializer, field_validator

from defenses import DEFENSES
from fl.cards import DefenseCard, StageRequest
from fl.specs import Config, NoConfig, TrialSpec, digest
from fl.types import Artifact


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

    def stages(self, spec: TrialSpec) -> list[StageRequest]:
        """Return what must be prepared for it, under names that tell it from the chain's other links."""
        return [
            replace(request, name=self._mark + request.name)
            for request in self.card.stages(self.config, spec)
        ]

    def own(self, artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
        """Return what its stages made, under the names that it asked for, out of what the chain's made."""
        mark = self._mark
        return {name.removeprefix(mark): made for name, made in artifacts.items() if name.startswith(mark)}

    @property
    def _mark(self) -> str:
        # Not its position: part of a chain is a chain, too.
        return f"{self.name}-{digest(self.canonical)[:8]}/"


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
