"""Plug-in cards: everything the planner needs to know about a plug-in, read without torch or numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from fl.specs import (
    JSON,
    Config,
    FederationSpec,
    ObservationKind,
    Task,
    ThreatModel,
    TrialSpec,
    canonical_json,
    digest,
)

ConfigT = TypeVar("ConfigT", bound=Config)
Domain = Literal["gradient", "update", "image", "model", "none"]
PARTS = ("private", "public", "evaluation", "test")


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
            (`fl.types.StageContext`); returns an
            `fl.types.Artifact`.
        version: Bumped when its results change.
        config: All it depends on besides its inputs, as plain JSON.
        inputs: Keys of the stages it is computed from.
        private: Whether the artifact holds private data and stays with the federation and score stages.
        resources: What it asks for.
    """

    name: str
    kind: str
    implementation: str
    version: int
    config: Mapping[str, JSON]
    inputs: tuple[str, ...] = ()
    private: bool = False
    resources: Resources = field(default_factory=Resources)

    @cached_property
    def key(self) -> str:
        """The content address: sha256 of everything the artifact is a function of."""
        return digest(
            canonical_json(
                {
                    "config": dict(self.config),
                    "implementation": self.implementation,
                    "inputs": list(self.inputs),
                    "kind": self.kind,
                    "version": self.version,
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


@dataclass(frozen=True)
class DataInfo:
    """What a configured data set holds, known without loading it.

    Attributes:
        task: What a model is trained for on it.
        channels: Image channels.
        size: Height and width in pixels.
        images: Number of images of each part of `PARTS`.
        public: Whether its images may be shown and stored in the open.
        fingerprint: Digest that changes when the images or labels change.
        groups: Number of patients or sources in the private part, where known.
        mean: Per-channel mean that model inputs are normalised with.
        std: Per-channel standard deviation, likewise.
    """

    task: Task
    channels: int
    size: int
    images: Mapping[str, int]
    public: bool
    fingerprint: str
    groups: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, kw_only=True)
class DataCard(Card[ConfigT]):
    """A data set.

    Attributes:
        licence: Licence of the images.
        parts: How the disjoint parts are made, in words.
        describe: From a configuration to what it holds, without torch or numpy; may read the file system.
            Raises `DataUnavailableError` where files are missing.
        assets: Names of the packaged assets it is made from (`bench data fetch`).
    """

    licence: str
    parts: str
    describe: Callable[[ConfigT], DataInfo]
    assets: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelTraits:
    """What a configured model is, for deciding what applies to it; tests compare it with the built model.

    Attributes:
        batch_norm: It has batch-norm layers.
        head_bias: Its head has a bias.
        non_negative_features: The head's input is never negative.
        convolution: It has a convolution (and so a layer for Grad-CAM).
        twice_differentiable: Smooth activations only, so that second derivatives are useful.
        min_size: Smallest image side, in pixels.
        channels: Image channels it takes; None for any.
        mflop_per_image: Multiply-adds of one forward pass at the data's size, in millions times two.
    """

    batch_norm: bool
    head_bias: bool
    non_negative_features: bool
    convolution: bool
    twice_differentiable: bool
    min_size: int
    channels: tuple[int, ...] | None
    mflop_per_image: float


@dataclass(frozen=True, kw_only=True)
class ModelCard(Card[ConfigT]):
    """A classifier architecture; `traits` is called with its configuration and the data it will see."""

    traits: Callable[[ConfigT, DataInfo], ModelTraits]


@dataclass(frozen=True)
class Setting:
    """What `compatible` decides on: the rest of a trial, as cards see it.

    For a recorded observation `federation` is None, and `data` and `model` come from the file.
    """

    data: DataInfo
    model: ModelTraits
    federation: FederationSpec | None
    threat_model: ThreatModel
    observes: ObservationKind
    attacker: Literal["static", "adaptive"] = "static"


def always_compatible(config: Config, setting: Setting) -> str | None:
    """Apply to every setting."""
    return None


def no_stages(config: Config, spec: TrialSpec) -> list[StageRequest]:
    """Need nothing prepared."""
    return []


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
        compatible: Reason why it cannot work in a setting, or None.
        stages: What must be prepared for it.
        resources: What one federation under it asks for.
    """

    noise_budget: Callable[[ConfigT], NoiseBudget]
    hooks: frozenset[str]
    mirrored: bool
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
    """

    family: Literal["gradient_inversion", "model_inversion", "floor"]
    observes: frozenset[ObservationKind]
    evaluations: Callable[[ConfigT], int]
    compatible: Callable[[ConfigT, Setting], str | None] = always_compatible
    stages: Callable[[ConfigT, TrialSpec], list[StageRequest]] = no_stages
    resources: Resources = field(default_factory=Resources)


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
    """

    kind: Literal["pair", "image", "set"]
    column: str
    unit: str
    leaks_more: Literal["higher", "lower"]
    lower: float | None
    upper: float | None


AnyCard = Card[Any]
