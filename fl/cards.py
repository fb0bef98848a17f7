"""Plug-in cards: everything the planner needs to know about a plug-in, read without torch or numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from fl.setting import PARTS, DataInfo, ModelTraits, Setting
from fl.specs import Config, ObservationKind, TrialSpec
from fl.stage_request import Resources, StageRequest, Work

__all__ = [
    "PARTS",
    "AnyCard",
    "AttackCard",
    "Card",
    "DataCard",
    "DataInfo",
    "DefenseCard",
    "Domain",
    "ManipulationCard",
    "MetricCard",
    "ModelCard",
    "ModelTraits",
    "NoiseBudget",
    "Reference",
    "Resources",
    "Setting",
    "StageRequest",
    "Work",
    "always_compatible",
    "no_stages",
    "nothing_required",
]

ConfigT = TypeVar("ConfigT", bound=Config)
Domain = Literal["gradient", "update", "image", "label", "model", "none"]


@dataclass(frozen=True)
class Reference:
    """Where a plug-in comes from: a citation in words and its BibTeX entry."""

    text: str
    bibtex: str = ""


@dataclass(frozen=True, kw_only=True)
class Card(Generic[ConfigT]):
    """What every plug-in declares.

    Attributes:
        name: The name used in a matrix.
        version: Bumped when results change; part of every key and trial id.
        summary: One sentence for `bench ls`.
        config: The configuration model.
        implementation: `module:attribute` of the code, imported only when it runs.
        reference: The source.
    """

    name: str
    version: int
    summary: str
    config: type[ConfigT]
    implementation: str
    reference: Reference | None = None

    @property
    def origin(self) -> str:
        """The top-level package that the implementation comes from."""
        return self.implementation.partition(":")[0].partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class DataCard(Card[ConfigT]):
    """A data set.

    Attributes:
        licence: Licence of the images.
        parts: How the disjoint parts are made, in words.
        describe: From a configuration to what it holds, without torch or numpy; may read the file system.
            Raises `DataUnavailableError` where files are missing.
        assets: Names of the packaged assets it is made from (`bench data fetch`).
        download: `module:function` behind `bench data fetch` for files that come from their publisher, called
            as `f(config)`; returns the folder they are in now. None: nothing to download.
        class_names: What the classes are called, in the order of their labels, where that is fixed.
        ranked: Whether reports may rank by utility on it; False for a few images that look alike, where a
            model's accuracy says nothing. Utility is stored all the same.
    """

    licence: str
    parts: str
    describe: Callable[[ConfigT], DataInfo]
    assets: tuple[str, ...] = ()
    download: str | None = None
    class_names: tuple[str, ...] = ()
    ranked: bool = True


def nothing_required(config: Config) -> None:
    """Need no file on this machine."""


@dataclass(frozen=True, kw_only=True)
class ModelCard(Card[ConfigT]):
    """A classifier architecture.

    Attributes:
        traits: What it is, from its configuration and the data it will see.
        require: Raises `DataUnavailableError` where weights that its configuration starts from are not on
            this machine; without torch or numpy.
    """

    traits: Callable[[ConfigT, DataInfo], ModelTraits]
    require: Callable[[ConfigT], None] = nothing_required


def always_compatible(config: Config, setting: Setting) -> str | None:
    """Apply to every setting."""
    return None


def no_stages(config: Config, spec: TrialSpec) -> list[StageRequest]:
    """Need nothing prepared."""
    return []


def always_mirrored(config: Config) -> str | None:
    """Have a mirror, if any, in every configuration."""
    return None


def one_at_a_time(config: Config) -> bool:
    """Solve tasks in turn."""
    return False


@dataclass(frozen=True)
class NoiseBudget:
    """The headline strength of a defense.

    Attributes:
        field: Dotted path into the configuration (a number indexes a list), or "" for a defense without one.
        unit: What the number counts.
        domain: Where it acts.
        stronger: Which way protects more.
        off: Value at which the update equals that of `none` bit for bit; None if there is none.
        grid: Default values for `noise_budget: auto`, from weak to strong.
    """

    field: str
    unit: str
    domain: Domain
    stronger: Literal["higher", "lower"]
    off: float | None
    grid: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class DefenseCard(Card[ConfigT]):
    """A defense.

    Attributes:
        noise_budget: From a configuration to its noise budget (a chain takes that of its last link).
        hooks: Names of the hooks it overrides (`fl.hooks`, `defenses.base`).
        mirrored: It has `estimate` and `mirror`, so that an adaptive attacker can model it.
        unmirrored: Why there is no mirror in a configuration, and what an adaptive attacker does instead;
            None where there is one. A defense with neither mirror nor `unperturb` must say.
        unperturbs: It has `unperturb`, so that an adaptive attacker can take out of a recovered batch what it
            put in; such a defense acts through `perturb_batch` alone.
        compatible: Reason why it cannot work in a setting, or None.
        stages: What must be prepared for it.
        resources: What one federation under it asks for.
    """

    noise_budget: Callable[[ConfigT], NoiseBudget]
    hooks: frozenset[str]
    mirrored: bool
    unmirrored: Callable[[ConfigT], str | None] = always_mirrored
    unperturbs: bool = False
    compatible: Callable[[ConfigT, Setting], str | None] = always_compatible
    stages: Callable[[ConfigT, TrialSpec], list[StageRequest]] = no_stages
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True, kw_only=True)
class AttackCard(Card[ConfigT]):
    """An attack.

    Attributes:
        family: `gradient_inversion`, `model_inversion`, or `floor` for one that ignores the observation.
        observes: Kinds of observation it can work on.
        evaluations: From a configuration to gradient evaluations of the model per target, for estimates.
        compatible: Reason why it cannot work in a setting, or None.
        stages: What must be prepared for it (generators, learned inverters).
        resources: What one bundle of its tasks asks for.
        side_by_side: Whether tasks of a configuration are solved as lanes of one batch (`attacks.engine`).
    """

    family: Literal["gradient_inversion", "model_inversion", "floor"]
    observes: frozenset[ObservationKind]
    evaluations: Callable[[ConfigT], int]
    compatible: Callable[[ConfigT, Setting], str | None] = always_compatible
    stages: Callable[[ConfigT, TrialSpec], list[StageRequest]] = no_stages
    resources: Resources = field(default_factory=Resources)
    side_by_side: Callable[[ConfigT], bool] = one_at_a_time


@dataclass(frozen=True, kw_only=True)
class ManipulationCard(Card[ConfigT]):
    """A way for a malicious server to change the model it sends.

    The implementation is called as `f(config, state, streams)` with an `fl.types.ModelState` and returns the
    one to send.
    """


@dataclass(frozen=True, kw_only=True)
class MetricCard(Card[ConfigT]):
    """A measure of leakage or utility.

    Attributes:
        kind: Whether it scores a pair of images, one image, or a set.
        column: Its column's name in `reconstructions/` (and, aggregated, in `trials/`).
        unit: Its unit, "" for none.
        leaks_more: Which way means that more leaked.
        lower: Smallest possible value, or None.
        upper: Largest possible value, or None.
        on_request: Whether it costs so much that only a matrix that names it (`metrics:`) measures it.
        evaluated: Whether it is measured by an evaluator, of model inversion alone; else against the private
            images behind an update.
    """

    kind: Literal["pair", "image", "set"]
    column: str
    unit: str
    leaks_more: Literal["higher", "lower"]
    lower: float | None
    upper: float | None
    on_request: bool = False
    evaluated: bool = False


AnyCard = Card[Any]
