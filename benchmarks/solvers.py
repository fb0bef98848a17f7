"""The solvers that are compared: ours, our plain loop, and `breaching`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attacks import ATTACKS
from attacks.base import AttackTask, Reconstruction
from attacks.engine.table import REFERENCE, EngineTable, using
from harness.execute.environment import Environment


class Answer(NamedTuple):
    """What a solver made of a task.

    Attributes:
        images: `1 x C x H x W` in [0, 1], or None if it failed.
        evaluations: Gradient evaluations; 0 where it does not tell.
        engine: The formulation.
        lanes: Tasks side by side.
    """

    images: Tensor | None
    evaluations: int = 0
    engine: str = ""
    lanes: int = 1


Peer = Callable[[str, AttackTask[Any]], Answer]
"""Solves one task of the named attack."""


def solve(attack: str, tasks: Sequence[AttackTask[Any]]) -> list[Answer]:
    """Solve tasks as `bench run` does, in the order given."""
    answers = {}
    environment = Environment(torch.device("cpu"), timeout_s=None)
    for answer in ATTACKS.implementation(attack)().solve(tasks, environment):
        if isinstance(answer, Reconstruction):
            answers[answer.task_id] = Answer(
                answer.images, answer.gradient_evaluations, answer.formulation, answer.lane_width
            )
        else:
            answers[answer.task_id] = Answer(None)
    return [answers[task.task_id] for task in tasks]


def loop(attack: str, task: AttackTask[Any]) -> Answer:
    """Solve one task by the plain loop (`attacks.matching`), which differentiates in the inputs only."""
    with using(EngineTable({}, {"cpu": REFERENCE})):
        return solve(attack, [task])[0]


def peers() -> dict[str, Peer]:
    """Return the peers that are installed, by name."""
    found: dict[str, Peer] = {"loop": loop}
    if find_spec("breaching") is not None:
        from benchmarks.breaching_peer import breaching

        found["breaching"] = breaching
    return found
