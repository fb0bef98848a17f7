"""Work items and receipts: all that passes between the run loop and the lanes; plain data that pickles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fl.cards import Resources, StageRequest
from fl.specs import TrialSpec

FailureKind = Literal["exception", "timeout", "out_of_memory", "killed", "device"]


@dataclass(frozen=True)
class Trial:
    """A trial to run.

    Attributes:
        trial_id: Hash of its canonical spec.
        spec: The spec.
    """

    trial_id: str
    spec: TrialSpec


@dataclass(frozen=True)
class StageItem:
    """A plug-in's stage, for whichever trials need it.

    Attributes:
        request: The stage.
        spec: One trial that needs it (its seed, data and public data).
        timeout_s: Wall-clock limit, or None.
    """

    request: StageRequest
    spec: TrialSpec
    timeout_s: float | None = None

    @property
    def item_id(self) -> str:
        """Unique within a run."""
        return f"stage-{self.request.key}"

    @property
    def resources(self) -> Resources:
        """What it asks for."""
        return self.request.resources


@dataclass(frozen=True)
class FederationItem:
    """A whole federation: all rounds, their checkpoints and utility.

    Attributes:
        key: The federation's stage key.
        spec: One trial of it.
        resources: What it asks for (its chunks ask for the same).
        timeout_s: Wall-clock limit, or None.
    """

    key: str
    spec: TrialSpec
    resources: Resources = field(default_factory=Resources)
    timeout_s: float | None = None

    @property
    def item_id(self) -> str:
        """Unique within a run."""
        return f"federation-{self.key}"


@dataclass(frozen=True)
class BundleItem:
    """Attack tasks of one or more trials that are solved and scored together.

    Attributes:
        trials: The trials; bundling never changes a row.
        resources: What the bundle asks for.
        timeout_s: Wall-clock limit of one trial, or None; a bundle's is this times its trials.
        attempt: 1 for the first try.
        lane_limit: The most lanes of the solver's batches, 0 for the plain loop; None for its table's word.
    """

    trials: tuple[Trial, ...]
    resources: Resources = field(default_factory=Resources)
    timeout_s: float | None = None
    attempt: int = 1
    lane_limit: int | None = None

    @property
    def item_id(self) -> str:
        """Unique within a run."""
        return f"bundle-{self.trials[0].trial_id}-{len(self.trials)}-{self.attempt}"


WorkItem = StageItem | FederationItem | BundleItem


@dataclass(frozen=True)
class Usage:
    """What a unit of work cost.

    Attributes:
        wall_s: Wall-clock seconds.
        cpu_s: CPU seconds of the process.
        gpu_s: Seconds that a GPU was held for it.
        peak_mem_mib: Peak memory: of the device on a GPU, else the process's resident set.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    peak_mem_mib: float = 0.0


@dataclass(frozen=True)
class Failure:
    """Why a unit did not finish.

    Attributes:
        kind: What happened to it.
        error: One line for the row.
        traceback: The traceback, or "".
        lanes: Of a bundle that ran out of memory, the lanes of the solver's batches (0: the plain loop); None
            where nobody was left to tell.
    """

    kind: FailureKind
    error: str
    traceback: str = ""
    lanes: int | None = None


@dataclass(frozen=True)
class Receipt:
    """A lane's answer to one work item; results themselves lie in the artifact store.

    Attributes:
        item_id: Which item.
        failure: Why the item as a whole failed, or None.
        trial_failures: For a bundle, trials that failed on their own while the rest is stored.
        usage: What it cost.
        lane: Name of the lane, for people.
    """

    item_id: str
    failure: Failure | None = None
    trial_failures: dict[str, Failure] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    lane: str = ""
