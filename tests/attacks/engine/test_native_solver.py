"""Tasks through the native kernel: what it can do it does, and the rest goes on as if there were none."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks import matching
from attacks.base import Reconstruction, TaskFailure
from attacks.catalog import DlgConfig, IdlgConfig, InvertingGradientsConfig
from attacks.dlg import Dlg
from attacks.engine.native.build import SWITCH, compiler
from attacks.engine.table import NATIVE, REFERENCE, Choice, EngineTable, choose, using
from attacks.idlg import Idlg
from attacks.inverting_gradients import InvertingGradients
from attacks.matching import Recipe
from attacks.optimizers import Lbfgs
from defenses.catalog import ClippingConfig
from defenses.clipping import Clipping
from harness.testing import SmallEnv, SmallProblem

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

LAYERS = Choice("layers", 16)
TABLE = EngineTable({"cpu": {"lenet": NATIVE}}, {}, {"cpu": {"lenet": LAYERS}})


def make_tasks():
    """Tasks that differ in weights, images, number of images, labels, defense, restarts and budget."""
    problems = [
        SmallProblem(seed=0),
        SmallProblem(seed=1, know_labels=True),
        SmallProblem(seed=2, n=2),
        SmallProblem(seed=3, defense=Clipping(ClippingConfig(bound=0.1))),
    ]
    configs = [DlgConfig(iterations=1), DlgConfig(iterations=2, restarts=2)]
    return [
        problem.attack_task(
            config,
            task_id=f"{number}-{index}",
            seed=10 * number + index,
            adaptive=problem.defense is not None,
            max_evaluations=None if index else 37,
        )
        for number, problem in enumerate(problems)
        for index, config in enumerate(configs)
    ]


TASKS = make_tasks()


def solve(attack, tasks, *, env=None, table=TABLE):
    with using(table):
        answers = list(attack.solve(tasks, env or SmallEnv()))
    assert sorted(answer.task_id for answer in answers) == sorted(task.task_id for task in tasks)
    return {answer.task_id: answer for answer in answers}


def check_same(one, other):
    assert torch.equal(one.images, other.images)
    assert one.objective == other.objective
    assert one.gradient_evaluations == other.gradient_evaluations
    assert (one.formulation, one.lane_width) == (other.formulation, other.lane_width)


@pytest.fixture(scope="module", name="alone")
def alone_fixture():
    return {task.task_id: solve(Dlg(), [task])[task.task_id] for task in TASKS}


@settings(max_examples=8, deadline=None, derandomize=True)
@given(mix=st.permutations(range(len(TASKS))).flatmap(lambda p: st.integers(2, len(p)).map(lambda k: p[:k])))
def test_any_mix_of_tasks_gives_the_answers_of_each_alone(alone, mix):
    for task_id, answer in solve(Dlg(), [TASKS[index] for index in mix]).items():
        check_same(answer, alone[task_id])


def test_a_weight_of_the_distance_is_not_lost():
    """The kernel knows none, so that the next best takes over."""
    recipe = Recipe("l2", 0.0, "joint", "randn", 1, lambda problem: Lbfgs(2, 0.0, 10), matching=0.25)
    task = SmallProblem(know_labels=True).attack_task(DlgConfig())
    with using(TABLE):
        (answer,) = matching.solve([task], SmallEnv(), lambda config: recipe)

    assert answer.formulation == "layers"
    assert answer.objective["total"] == pytest.approx(answer.objective["matching"] / 4)


def test_what_the_kernel_cannot_do_goes_to_the_next_best(alone):
    """A mirrored defense is beyond it."""
    for task_id, answer in alone.items():
        assert (answer.formulation, answer.lane_width) == (LAYERS if task_id.startswith("3") else NATIVE)


@pytest.mark.parametrize("total_variation", [0.0, 0.1])
def test_other_attacks_use_it_only_under_l_bfgs_without_total_variation(total_variation):
    plain = {"signed": False, "boxed": False, "decay": False, "total_variation": total_variation}
    config = InvertingGradientsConfig(iterations=2, optimizer="lbfgs", **plain)
    answer = solve(InvertingGradients(), [SmallProblem().attack_task(config)])["small"]
    assert answer.formulation == ("layers" if total_variation else "native")
    config = InvertingGradientsConfig(iterations=2, total_variation=0.0)
    answer = solve(InvertingGradients(), [SmallProblem().attack_task(config)])["small"]
    assert answer.formulation == "layers"


@pytest.mark.parametrize(
    ("attack", "config", "problem"),
    [
        (Dlg(), DlgConfig(iterations=1, restarts=2, tolerance=0), SmallProblem()),
        (Dlg(), DlgConfig(iterations=1), SmallProblem(n=2, channels=3)),
        (Dlg(), DlgConfig(iterations=3, tolerance=1e9), SmallProblem(kind="delta")),
        (Idlg(), IdlgConfig(iterations=1), SmallProblem()),
    ],
)
@pytest.mark.parametrize("allowed", [None, 1, 5])
def test_it_does_what_the_plain_loop_does(attack, config, problem, allowed):
    task = problem.attack_task(config, max_evaluations=allowed)
    ours, loop = SmallEnv(), SmallEnv()
    fast = solve(attack, [task], env=ours)["small"]
    plain = solve(attack, [task], env=loop, table=EngineTable({}, {"cpu": REFERENCE}))["small"]
    assert fast.formulation == "native"
    assert fast.gradient_evaluations == plain.gradient_evaluations
    assert fast.lane_iterations == plain.lane_iterations
    torch.testing.assert_close(fast.images, plain.images, atol=0.05, rtol=0)
    assert fast.objective == pytest.approx(plain.objective, rel=0.05)
    for one, other in zip(ours.snapshots["small"], loop.snapshots["small"], strict=True):
        assert (one.iteration, one.restart) == (other.iteration, other.restart)
        assert one.best == pytest.approx(other.best, rel=0.05)


class Stopping(SmallEnv):
    """Stops one task after its first iterate."""

    def stopping(self, task_id):
        return task_id == "1" and bool(self.snapshots.get(task_id))


def test_a_stopped_task_and_one_that_is_not_finite_leave_the_others():
    tasks = [SmallProblem(seed=i).attack_task(DlgConfig(iterations=30), task_id=str(i)) for i in range(3)]
    tensors = tasks[2].observation.update.tensors
    next(iter(tensors.values())).fill_(math.nan)
    answers = solve(Dlg(), tasks, env=Stopping())
    assert answers["1"] == TaskFailure("1", "stopped")
    assert isinstance(answers["0"], Reconstruction)
    assert "finite" in answers["2"].error


def test_a_misshapen_update_fails_alone():
    tasks = [SmallProblem(seed=i).attack_task(DlgConfig(iterations=1), task_id=str(i)) for i in range(2)]
    tensors = tasks[0].observation.update.tensors
    name = next(iter(tensors))
    tensors[name] = tensors[name].flatten()[:3]
    answers = solve(Dlg(), tasks)
    assert "expected" in answers["0"].error
    assert isinstance(answers["1"], Reconstruction)


@pytest.mark.parametrize(("name", "value"), [(SWITCH, "0"), ("PATH", "")])
def test_without_a_kernel_rows_are_those_of_the_next_best(monkeypatch, name, value):
    task = TASKS[0]
    expected = solve(Dlg(), [task], table=EngineTable({}, {"cpu": LAYERS}))[task.task_id]
    monkeypatch.setenv(name, value)
    monkeypatch.delenv("CXX", raising=False)
    with using(TABLE):
        assert choose("lenet", "cpu") == LAYERS
    check_same(solve(Dlg(), [task])[task.task_id], expected)
    without = EngineTable({"cpu": {"lenet": NATIVE}})
    assert solve(Dlg(), [task], table=without)[task.task_id].formulation == "reference"


def test_a_kernel_that_does_not_compile_is_replaced_as_well(monkeypatch, tmp_path):
    broken = tmp_path / "broken-compiler"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert solve(Dlg(), [TASKS[0]])[TASKS[0].task_id].formulation == "layers"


def test_the_table_remembers_what_stands_in():
    assert EngineTable.parse(TABLE.text) == TABLE
    assert TABLE.choices("lenet", "cpu") == (NATIVE, LAYERS)
    assert TABLE.digest != EngineTable(TABLE.models).digest
    changed = TABLE.with_choice("lenet", "cpu", LAYERS)
    assert changed.portable == {}
    assert changed.with_choice("lenet", "cpu", NATIVE, portable=LAYERS) == TABLE
