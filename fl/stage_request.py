"""A stage that has to be made before a trial can run, as cards ask for it; read without torch or numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fl.specs import JSON, canonical_json, digest


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
class Work:
    """What making a stage takes, as far as it can be counted beforehand.

    Attributes:
        mflop: Multiply-adds, in millions times two, as in `fl.setting.ModelTraits.mflop_per_image`.
        evaluations: Gradient evaluations, of which each takes its time beside the arithmetic.
    """

    mflop: float
    evaluations: int


@dataclass(frozen=True)
class StageRequest:
    """A stage that a plug-in needs before its trial can run: a prior, a learned inverter, a shadow generator.

    Attributes:
        name: Under which name the plug-in finds the artifact.
        kind: Word for people, e.g. `prior`.
        implementation: `module:function`, called as `f(config, inputs, context)`
            (`fl.stage_context.StageContext`); returns an `fl.types.Artifact`.
        version: Bumped when its results change.
        config: All it depends on besides its inputs, as plain JSON.
        inputs: Keys of the stages it is computed from.
        private: Whether the artifact holds private data and stays with the federation and score stages.
        resources: What it asks for.
        files: Where files lie whose digests `config` holds, by a name of the plug-in's own; not part of the
            key.
        round: Round of the trial's federation whose global model the stage is made with
            (`StageContext.model`); None for a stage that needs no model. `inputs` then hold the federation's
            key. The artifact is kept where private data are, and is the adversary's.
        judge: Whether it is made for the judge, from parts of the data set that no attack or defense sees.
        work: What making it takes, for estimates; None where that is not known. Not part of the key.
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
    work: Work | None = None

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
