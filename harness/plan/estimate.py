"""How long a plan's trials and what they share take, and how much they store.

Trials from past rows where there are any, else as federations and other stages are: counted arithmetic at an
assumed rate. How long those took is stored nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fl.cards import DataInfo, ModelTraits, StageRequest
from fl.data.partition_bounds import images_held
from fl.specs import FederationSpec
from harness.config.matrix import Matrix
from harness.config.sections import Cell
from harness.plan.applicability import Applicability

MFLOP_PER_S = 5e3
"""Assumed rate of one CPU core on small convolutions."""
STAGE_MFLOP_PER_S = 4e4
"""Likewise in training generators, GANs and evaluators, whose batches are large."""
EVALUATION_OVERHEAD_S = 2e-3
"""Assumed cost of a gradient evaluation beside its arithmetic, which rules in small models."""
MATCHING_COST = 8.0
"""Gradient matching, in forward passes: forward, backward, and backward through both.

About as much as model inversion, forward and backward through classifier, generator and critic.
"""
TRAINING_COST = 3.0
"""A training step, in forward passes: forward, and a backward of twice its cost."""
SAMPLES = "samples"
"""Option of attacks on a global model: images per label; the others give one."""
EXACT_BYTES = 4
"""Bytes of a value of a reconstruction that is kept for scoring."""
SNAPSHOTS = 30
ROW_BYTES = 4096


class CostKey(NamedTuple):
    """What a trial's time mostly depends on, as columns of `trials/`."""

    attack: str
    model: str | None
    dataset: str | None
    batch_size: int | None


class Cost(NamedTuple):
    """What one trial or federation takes.

    Attributes:
        seconds: On one lane.
        bytes: Stored.
        measured: Whether the seconds come from past rows.
    """

    seconds: float
    bytes: float
    measured: bool = False


@dataclass(frozen=True)
class Estimate:
    """What is left to do.

    Attributes:
        trial_seconds: Attacks and scoring, on one lane.
        federation_seconds: Training, on one lane.
        stage_seconds: Other stages (generators, GANs, evaluators), on one lane, as far as it is known.
        trained_stage_seconds: Those of them that are made with a federation's model, and so anew for each.
        disk_bytes: Images of reconstructions and traces, and rows; checkpoints of models are not counted.
        measured: Trials whose time is the median of past rows.
        assumed: Trials whose time is counted arithmetic at an assumed rate.
        unknown_stages: Stages whose time is not known, and therefore in none of these, by kind.
    """

    trial_seconds: float = 0.0
    federation_seconds: float = 0.0
    stage_seconds: float = 0.0
    trained_stage_seconds: float = 0.0
    disk_bytes: float = 0.0
    measured: int = 0
    assumed: int = 0
    unknown_stages: Mapping[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """All that is known, on one lane."""
        return self.trial_seconds + self.federation_seconds + self.stage_seconds

    @property
    def basis(self) -> str:
        """Where the seconds come from, in words."""
        guess = f"{MFLOP_PER_S / 1e3:g} GFLOP/s assumed"
        if self.stage_seconds:
            guess += f" ({STAGE_MFLOP_PER_S / 1e3:g} in other stages)"
        if not self.measured:
            return guess
        counted = bool(self.assumed or self.federation_seconds or self.stage_seconds)
        return f"median of past rows for {self.measured} trials" + (f", {guess}" if counted else "")


class Costs:
    """Estimates costs of one matrix's cells, once per combination of what they depend on."""

    def __init__(
        self, matrix: Matrix, applicability: Applicability, past_wall_s: Mapping[CostKey, float]
    ) -> None:
        """Take the matrix, what its cells are, and the median `wall_s` of past trials."""
        self._matrix = matrix
        self._applicability = applicability
        self._past = past_wall_s
        self._trials: dict[tuple[int, ...], Cost] = {}
        self._federations: dict[tuple[int, ...], float] = {}

    def trial(self, cell: Cell) -> Cost:
        """Return what attacking and scoring one trial of `cell` takes."""
        key = (cell.attack, cell.data, cell.federation, cell.model, cell.observe, cell.recorded, cell.targets)
        if key not in self._trials:
            self._trials[key] = self._trial(cell)
        return self._trials[key]

    def federation_seconds(self, cell: Cell) -> float:
        """Return what training the federation of `cell` takes; 0 for a recorded observation."""
        key = (cell.data, cell.federation, cell.model)
        if key not in self._federations:
            self._federations[key] = self._federation(cell)
        return self._federations[key]

    def _trial(self, cell: Cell) -> Cost:
        pools, world = self._matrix.pools, self._applicability.world(cell)
        if world is None:
            return Cost(0.0, ROW_BYTES)
        attack, federation = pools.attack[cell.attack], pools.federation[cell.federation]
        if world.observes == "global_model":
            each = float(getattr(attack.config, SAMPLES, 1))
        else:
            clients = pools.observe[cell.observe].clients if world.observes == "aggregate" else 1
            each = clients * _images_per_update(federation, world.data)
        images = pools.targets[cell.targets] * each
        pixels = world.data.channels * world.data.size**2
        stored = images * (1 + SNAPSHOTS + EXACT_BYTES) * pixels + ROW_BYTES
        model, data = pools.model[cell.model], pools.data[cell.data]
        batch_size = federation.batch_size if federation else None
        name = CostKey(attack.name, model.name if model else None, data.name if data else None, batch_size)
        if name in self._past:
            return Cost(self._past[name], stored, measured=True)
        evaluations = self._matrix.plugins.attacks.get(attack.name).evaluations(attack.config)
        arithmetic = evaluations * MATCHING_COST * world.model.mflop_per_image * images / MFLOP_PER_S
        waiting = evaluations * pools.targets[cell.targets] * EVALUATION_OVERHEAD_S
        return Cost(arithmetic + waiting, stored)

    def _federation(self, cell: Cell) -> float:
        federation, world = self._matrix.pools.federation[cell.federation], self._applicability.world(cell)
        if federation is None or world is None:
            return 0.0
        images = federation.rounds * federation.participants * _images_per_update(federation, world.data)
        tested = (federation.rounds + 1) * world.data.images["test"]
        return _training_seconds(images, tested, federation, world.model)


def stage_seconds(request: StageRequest) -> float | None:
    """Return what making a stage takes, on one lane; None where its card does not say."""
    if request.work is None:
        return None
    return request.work.mflop / STAGE_MFLOP_PER_S + request.work.evaluations * EVALUATION_OVERHEAD_S


def _images_per_update(federation: FederationSpec | None, data: DataInfo) -> float:
    """Return about how many images one client trains on before it sends an update."""
    if federation is None:
        return 1
    held = max(1.0, images_held(federation.partition, data.images["private"]) / federation.clients)
    if federation.sends == "gradient":
        return min(held, federation.mean_batch_size)
    if federation.local_steps is not None:
        return federation.local_steps * federation.mean_batch_size
    return held * federation.local_epochs


def _training_seconds(images: float, tested: float, federation: FederationSpec, model: ModelTraits) -> float:
    arithmetic = (images * TRAINING_COST + tested) * model.mflop_per_image / MFLOP_PER_S
    return arithmetic + images / federation.mean_batch_size * EVALUATION_OVERHEAD_S
