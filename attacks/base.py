"""The seam between attacks and everything else: tasks in, reconstructions out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from fl.specs import Config
from fl.types import Artifact, ModelState, Observation, PublicData, Update

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from fl.seeds import Streams

ConfigT = TypeVar("ConfigT", bound=Config)
Params = Any
"""A pytree of tensors that a defense's `estimate` returns."""


class DefenseView(Protocol):
    """A defense as an adaptive attacker knows it."""

    def estimate(self, observation: Observation) -> Params:
        """Infer the defense's parameters from one observation."""

    def mirror(self, params: Params, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Apply what the defense does after the gradient; differentiable, out of place, one lane."""


class Simulate(Protocol):
    """The client as this attacker knows it, the defense included if the attacker is adaptive."""

    def __call__(self, images: Tensor, labels: Tensor, sent: ModelState, stream: torch.Generator) -> Update:
        """Return the update on `images` (`n x C x H x W` in [0, 1]) and `labels`; differentiable in both."""


@dataclass(frozen=True)
class AttackTask(Generic[ConfigT]):
    """One target and all that the adversary has; no secret is reachable from here.

    Attributes:
        task_id: Unique within a run.
        observation: What the adversary sees.
        config: The attack's configuration; tasks solved together may differ in it.
        streams: The target's own streams (they name the seed and the target, not the defense or attack).
        public: The attacker's own images, where the threat model grants them.
        simulate: The client as this attacker knows it.
        adaptive: Whether the attacker knows the defense; `simulate` then includes it.
        defense: The defense, if the attacker is adaptive and the defense can be mirrored. Without one and
            without `unperturb`, an adaptive attacker works through `simulate`: the defense acts before the
            gradient.
        artifacts: What the plan's stages made for this task, by the request's name.
        target_label: The class to recover (model inversion), else None.
        max_evaluations: Gradient evaluations it may spend, or None for the attack's own schedule.
        unperturb: From the batch that was trained on, as recovered (`n x C x H x W`, not clamped), and its
            labels to the private one, if the attacker is adaptive and the defense can be taken out of a
            batch. What `simulate` and `defense` then know is the rest of a chain.
        group: Tasks of one group are one trial's: they come to `solve` in one call, in the order of the
            trial's targets, and an attack may work on them together. "": a group of its own.
    """

    task_id: str
    observation: Observation
    config: ConfigT
    streams: Streams
    public: PublicData | None
    simulate: Simulate
    adaptive: bool = False
    defense: DefenseView | None = None
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    target_label: int | None = None
    max_evaluations: int | None = None
    unperturb: Callable[[Tensor, Tensor], Tensor] | None = None
    group: str = ""

    @property
    def simulates(self) -> bool:
        """Whether the attacker has no way to account for the defense but to simulate the client."""
        return self.adaptive and self.defense is None and self.unperturb is None


@dataclass(frozen=True)
class Snapshot:
    """The state of a task during its run, for `traces/`.

    Attributes:
        iteration: Iterations done, those of earlier restarts included.
        objective: Current terms of the objective by name, unweighted; `total` is what is minimised.
        best: Best total objective so far, over all restarts.
        images: Current images, `n x C x H x W` in [0, 1], or None.
        restart: Which restart, from 0.
    """

    iteration: int
    objective: Mapping[str, float]
    best: float
    images: Tensor | None = None
    restart: int = 0


class AttackEnv(Protocol):
    """Where an attack runs."""

    @property
    def device(self) -> torch.device:
        """Where to compute."""

    def build(self, state: ModelState) -> nn.Module:
        """Return the module with the state's weights, wrappers included, on `device`, in the state's mode."""

    def record(self, task_id: str, snapshot: Snapshot) -> None:
        """Keep a snapshot; called any number of times, thinned to about 30 a task."""

    def stopping(self, task_id: str) -> bool:
        """Whether to give up now (deadline or Ctrl-C); what is given up is never stored."""


@dataclass(frozen=True)
class Reconstruction:
    """What an attack recovered for one task.

    Attributes:
        task_id: Whose.
        images: `m x C x H x W` in [0, 1]; m need not be the number of private images.
        labels: `m` int64 or None if the attack does not recover labels.
        objective: Final terms of the attack's own objective, by name; restarts are chosen by it.
        gradient_evaluations: Evaluations of the model's gradient spent, all restarts together.
        lane_iterations: Optimizer iterations spent, for dividing a bundle's cost.
        formulation: How gradients were computed (`attacks.engine.table`).
        lane_width: Tasks side by side, idle lanes included.
        tabled: Whether the solver's table chose both.
    """

    task_id: str
    images: Tensor
    labels: Tensor | None
    objective: Mapping[str, float]
    gradient_evaluations: int
    lane_iterations: int
    formulation: str = "reference"
    lane_width: int = 1
    tabled: bool = False


@dataclass(frozen=True)
class TaskFailure:
    """A task that an attack could not finish: an error, or `env.stopping`."""

    task_id: str
    error: str
    traceback: str = ""


class Attack(ABC, Generic[ConfigT]):
    """Turns observations into reconstructions, without ever seeing the truth."""

    @abstractmethod
    def solve(
        self, tasks: Iterable[AttackTask[ConfigT]], env: AttackEnv
    ) -> Iterator[Reconstruction | TaskFailure]:
        """Solve tasks in any order and grouping, yielding each as it finishes; every task is answered once.

        A result must not depend on which tasks come along, but for those of its own group.
        """
