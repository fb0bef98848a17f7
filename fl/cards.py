"""Plug-in cards: everything the planner needs to know about a plug-in, read without torch or numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from fl.setting import PARTS, DataInfo, ModelTraits, Setting
from fl.specs import JSON, Config, ObservationKind, TrialSpec, canonical_json, digest

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


@dataclass(frozen=True)
class Resources:
    """What one work item of a plug-in asks for; `resources:` in a matrix overrides it.

    Attributes:
        cpus: CPU cores reserved (computation itself uses one thread).
        gpus: Fraction of one GPU asked for where the cluster has one; 0 for work that cannot use a GPU.
        memory_mib: Memory in MiB.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_mib: int = 1024


@dataclass(frozen=True)
class StageRequest:
    """A stage that a plug-in needs before its trial can run: a prior, a learned inverter, a shadow generator.

    Attributes:
        name: Under which name the plug-in finds the artifact.
        kind: Word for people, e.g. `prior`.
        implementation: `module:function`, called as `f(config, inputs, context)`
            (`fl.types.StageContext`); returns an `fl.types.Artifact`.
        version: Bumped when its results change.
        config: All it depends on besides its inputs, as plain JSON.
        inputs: Keys of the stages it is computed from.
        private: Whether the artifact holds private data and stays with the federation and score stages.
        resources: What it asks for.
        files: Where files lie whose digests `config` holds, by a name of the plug-in's own; not part of the
            key.
        round: Round of the trial's federation whose global model the stage is made with
            (`fl.types.StageContext.model`); None for a stage that needs no model. `inputs` then hold the
            federation's key. The artifact is kept where private data are, and is the adversary's.
        judge: Whether it is made for the judge, from parts of the data set that no attack or defense sees.
    """

    name: str
    kind: str
    implementation: str
    version: int
    config: Mapping[str, JSON]
    inputs: tuple[str, ...] = ()
    private: bool = False
    resources: Resources = field(default_factory=Resources)
    files: Mapping[str, str] = field(default_factory=dict)
    round: int | None = None
    judge: bool = False

    @property
    def kept_private(self) -> bool:
        """Whether the artifact is stored where private data are."""
        return self.private or self.round is not None

    @cached_property
    def key(self) -> str:
        """The content address: sha256 of everything the artifact is a function of."""
        round_ = {} if self.round is None else {"round": self.round}
        return digest(
            canonical_json(
                {
                    "config": dict(self.config),
                    "implementation": self.implementation,
                    "inputs": list(self.inputs),
                    "kind": self.kind,
                    "version": self.version,
                    **round_,
                }
            )
        )


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
