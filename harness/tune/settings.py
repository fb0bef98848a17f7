"""The entries of a tune file beside its trials: what is wanted, how it is searched; read without Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.config.problems import Problems, did_you_mean, one_of, shown, unknown_key
from harness.config.sweeps import is_number
from harness.config.validate import validate
from harness.config.yaml_loader import Node
from harness.tune.quantities import LEAKS_LOWER, QUANTITIES

DEFAULT_TRIALS = 40
DEFAULT_PARALLEL = 4


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LeakageSettings(_Settings):
    """What the quantity `leakage` is.

    Attributes:
        metric: A column of leakage; a trial's value is its mean over the images of its targets.
        floor: What is subtracted: the best floor's value on the same targets, or nothing.
        aggregate: Over attacks and attackers: the strongest, or the mean.
    """

    metric: Literal[
        "ssim",
        "psnr_db",
        "lpips",
        "mse",
        "success_rate",
        "identification_top1",
        "attack_top1",
        "knn_distance",
        "evaluator_fid",
    ] = "ssim"
    floor: Literal["best", "none"] = "best"
    aggregate: Literal["max", "mean"] = "max"

    @model_validator(mode="after")
    def _distances_need_a_floor(self) -> LeakageSettings:
        if self.floor == "none" and self.metric in LEAKS_LOWER:
            raise ValueError(f"expected floor: best for {self.metric}, of which less means that more leaked")
        return self


class Bound(_Settings):
    """What a quantity must keep to.

    Attributes:
        max: At most this.
        min: At least this.
    """

    max: float | None = None
    min: float | None = None

    @model_validator(mode="after")
    def _one_side(self) -> Bound:
        if (self.max is None) == (self.min is None):
            raise ValueError("expected {max: number} or {min: number}")
        return self

    def excess(self, value: float) -> float:
        """Return how far a value is beyond the bound; at most 0 where it keeps to it."""
        return value - self.max if self.max is not None else (self.min or 0.0) - value


class Pruning(_Settings):
    """When an Optuna trial ends before its last seed (`pruning.hopeless`).

    Attributes:
        margin: What an objective may still gain, as a share of its extent over the complete Optuna trials.
        after: Seeds that are always evaluated.
        startup: Complete Optuna trials without which none is ended early.
    """

    margin: float = Field(0.1, ge=0)
    after: int = Field(1, ge=1)
    startup: int = Field(5, ge=1)


class Sampler(_Settings):
    """What proposes parameters.

    Attributes:
        seed: Of its random numbers.
    """

    seed: int = Field(0, ge=0, le=2**31 - 1)


class Random(Sampler):
    """Independent draws."""

    name: Literal["random"] = "random"


class Tpe(Sampler):
    """Tree-structured Parzen estimators (Bergstra et al. 2011; several objectives: Ozaki et al. 2022).

    Attributes:
        startup: Optuna trials drawn at random before.
        candidates: Draws of which the most promising one is taken.
    """

    name: Literal["tpe"] = "tpe"
    startup: int = Field(10, ge=1)
    candidates: int = Field(24, ge=1)


class NsgaII(Sampler):
    """An evolutionary search over generations (Deb et al. 2002).

    Attributes:
        population: Optuna trials of a generation.
        crossover: Probability that two parents are mixed.
    """

    name: Literal["nsga2"] = "nsga2"
    population: int = Field(20, ge=2)
    crossover: float = Field(0.9, ge=0, le=1)


class Gp(Sampler):
    """Bayesian optimization with Gaussian processes.

    Attributes:
        startup: Optuna trials drawn at random before.
    """

    name: Literal["gp"] = "gp"
    startup: int = Field(10, ge=1)


AnySampler = Random | Tpe | NsgaII | Gp
SAMPLERS: Mapping[str, type[AnySampler]] = {"tpe": Tpe, "nsga2": NsgaII, "gp": Gp, "random": Random}
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class StudySettings:
    """What a study wants and how it searches.

    Attributes:
        objectives: Direction by quantity, in the order of the file.
        leakage: What `leakage` is.
        constraints: Bounds by quantity.
        sampler: What proposes parameters.
        prune: When an Optuna trial ends early; None for never.
        trials: Optuna trials.
        parallel: Optuna trials in flight.
    """

    objectives: Mapping[str, Direction]
    leakage: LeakageSettings
    constraints: Mapping[str, Bound]
    sampler: AnySampler
    prune: Pruning | None
    trials: int
    parallel: int


def read_study(document: Node, problems: Problems) -> StudySettings:
    """Return the study's settings; mistakes go to `problems`."""
    entries = document.entries
    prune = validate(Pruning, entries["prune"], problems) if "prune" in entries else None
    leakage = validate(LeakageSettings, entries["leakage"], problems) if "leakage" in entries else None
    return StudySettings(
        objectives=_objectives(document, problems),
        leakage=leakage or LeakageSettings(),
        constraints=_constraints(entries["constraints"], problems) if "constraints" in entries else {},
        sampler=_sampler(entries["sampler"], problems) if "sampler" in entries else Tpe(),
        prune=prune,
        trials=_count(document, "trials", DEFAULT_TRIALS, problems),
        parallel=_count(document, "parallel", DEFAULT_PARALLEL, problems),
    )


def _objectives(document: Node, problems: Problems) -> dict[str, Direction]:
    node = document.entries.get("objectives")
    if node is None or not node.entries:
        message = "expected objectives, such as {accuracy: maximize, leakage: minimize}, got none"
        problems.add(node.mark if node else document.mark, message)
        return {}
    found: dict[str, Direction] = {}
    for name, child in node.entries.items():
        known = _known(name, node, problems)
        if child.value not in ("maximize", "minimize"):
            hint = did_you_mean(str(child.value), ("maximize", "minimize"))
            problems.add(child.mark, f"expected maximize or minimize, got {shown(child.plain())}{hint}")
        elif known:
            found[name] = "maximize" if child.value == "maximize" else "minimize"
    return found


def _constraints(node: Node, problems: Problems) -> dict[str, Bound]:
    if not isinstance(node.value, dict):
        problems.add(node.mark, f"expected {{quantity: {{max: number}}}}, got {shown(node.plain())}")
    found = {}
    for name, child in node.entries.items():
        known = _known(name, node, problems)
        bound = validate(Bound, child, problems)
        if known and bound is not None:
            found[name] = bound
    return found


def _known(name: str, node: Node, problems: Problems) -> bool:
    if name not in QUANTITIES:
        problems.add(node.keys[name], unknown_key(name, QUANTITIES))
    return name in QUANTITIES


def _sampler(node: Node, problems: Problems) -> AnySampler:
    if isinstance(node.value, str):
        node = Node({"name": node}, node.mark, {"name": node.mark})
    name = node.entries.get("name", node)
    if not isinstance(name.value, str) or name.value not in SAMPLERS:
        hint = did_you_mean(str(name.value), SAMPLERS)
        problems.add(name.mark, f"expected {one_of(SAMPLERS)}, got {shown(name.plain())}{hint}")
        return Tpe()
    return validate(SAMPLERS[name.value], node, problems) or Tpe()


def _count(document: Node, key: str, default: int, problems: Problems) -> int:
    node = document.entries.get(key)
    if node is None:
        return default
    if is_number(node.value) and isinstance(node.value, int) and node.value >= 1:
        return node.value
    problems.add(node.mark, f"expected an integer >= 1, got {shown(node.plain())}")
    return default
