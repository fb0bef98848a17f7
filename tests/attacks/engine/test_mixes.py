"""Random mixes of tasks in random order, lanes filled again: each answer is bit for bit the task's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.catalog import DlgConfig, InvertingGradientsConfig
from attacks.dlg import Dlg
from attacks.engine.formulations import FORMULATIONS
from attacks.engine.table import Choice, EngineTable, using
from attacks.inverting_gradients import InvertingGradients
from defenses.catalog import ClippingConfig, PruningConfig
from defenses.clipping import Clipping
from defenses.pruning import Pruning
from harness.testing import SmallEnv, SmallProblem

LANES = 16
SIGMOID, RELU = {"convs": 2}, {"convs": 3, "activation": "relu"}
PROBLEMS = [
    SmallProblem(seed=0, model=SIGMOID),
    SmallProblem(seed=1, model=SIGMOID, know_labels=True),
    SmallProblem(seed=2, model=SIGMOID, n=2, know_labels=True),
    SmallProblem(seed=3, model=SIGMOID, defense=Clipping(ClippingConfig(bound=0.1))),
    SmallProblem(seed=5, model=RELU),
    SmallProblem(seed=6, model=RELU, defense=Pruning(PruningConfig(ratio=0.5))),
]
DESCENTS = [
    InvertingGradientsConfig(iterations=2),
    InvertingGradientsConfig(iterations=3, restarts=2, signed=False),
    InvertingGradientsConfig(iterations=4, total_variation=1e-2, boxed=False, cost="l2"),
]
QUASI_NEWTON = [DlgConfig(iterations=1), DlgConfig(iterations=2, restarts=2, patience=1)]


def make_tasks(configs):
    """Every problem under every configuration, some with few evaluations to spend, some adaptive."""
    return [
        problem.attack_task(
            config,
            task_id=f"{number}-{index}",
            seed=10 * number + index,
            adaptive=problem.defense is not None and index % 2 == 0,
            max_evaluations=3 if (number + index) % 5 == 0 else None,
        )
        for number, problem in enumerate(PROBLEMS)
        for index, config in enumerate(configs)
    ]


def solve(attack, tasks, formulation):
    with using(EngineTable({}, {"cpu": Choice(formulation, LANES)})):
        answers = list(attack.solve(iter(tasks), SmallEnv()))
    assert sorted(answer.task_id for answer in answers) == sorted(task.task_id for task in tasks)
    return {answer.task_id: answer for answer in answers}


def check_same(one, other):
    assert torch.equal(one.images, other.images)
    assert (one.labels is None) == (other.labels is None)
    assert one.labels is None or torch.equal(one.labels, other.labels)
    assert one.objective == other.objective
    assert one.gradient_evaluations == other.gradient_evaluations
    assert one.lane_iterations == other.lane_iterations
    assert (one.formulation, one.lane_width) == (other.formulation, other.lane_width)


class Mixes:
    """Tasks of an attack, and each one's answer alone."""

    def __init__(self, attack, configs):
        self.attack = attack
        self.tasks = make_tasks(configs)
        self._alone = {}

    def alone(self, task, formulation):
        key = (task.task_id, formulation)
        if key not in self._alone:
            self._alone[key] = solve(self.attack, [task], formulation)[task.task_id]
        return self._alone[key]

    def check(self, indices, formulation):
        mix = [self.tasks[index] for index in indices]
        together = solve(self.attack, mix, formulation)
        for task in mix:
            check_same(together[task.task_id], self.alone(task, formulation))


DESCENT = Mixes(InvertingGradients(), DESCENTS)
LBFGS = Mixes(Dlg(), QUASI_NEWTON)


def orders(mixes):
    """All tasks, or some of them, in any order."""
    count = len(mixes.tasks)
    return st.permutations(range(count)).flatmap(lambda p: st.integers(2, count).map(lambda k: p[:k]))


@pytest.mark.parametrize("formulation", FORMULATIONS)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(order=orders(DESCENT))
def test_descent_in_any_company(formulation, order):
    DESCENT.check(order, formulation)


@settings(max_examples=2, deadline=None, derandomize=True)
@given(order=orders(LBFGS))
def test_quasi_newton_in_any_company(order):
    LBFGS.check(order, "layers")


def test_lanes_are_filled_again_and_again():
    """One bucket, with more than twice as many tasks as lanes, of unlike length."""
    tasks = [
        SmallProblem(seed=seed, model=SIGMOID, know_labels=True).attack_task(
            DESCENTS[seed % 2], task_id=str(seed)
        )
        for seed in range(2 * LANES + 5)
    ]
    together = solve(InvertingGradients(), tasks, "layers")
    for task in tasks[::6]:
        check_same(together[task.task_id], solve(InvertingGradients(), [task], "layers")[task.task_id])
    assert {answer.formulation for answer in together.values()} == {"layers"}
