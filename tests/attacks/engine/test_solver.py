"""Tasks through lanes: the same answers whatever comes along, and those of the plain loop."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.base import Reconstruction, TaskFailure
from attacks.catalog import DlgConfig, IdlgConfig, InvertingGradientsConfig
from attacks.dlg import Dlg
from attacks.engine.formulations import FORMULATIONS
from attacks.engine.table import NATIVE, REFERENCE, Choice, EngineTable, shipped, using
from attacks.idlg import Idlg
from attacks.inverting_gradients import InvertingGradients
from defenses.catalog import ClippingConfig, PruningConfig
from defenses.clipping import Clipping
from defenses.pruning import Pruning
from harness.testing import SmallEnv, SmallProblem


@pytest.fixture(name="narrow")
def narrow_fixture(monkeypatch):
    """Three lanes, so that few tasks fill them again and again."""
    monkeypatch.setitem(shipped().models["cpu"], "lenet", Choice("layers", 3))


def make_tasks():
    """Tasks that differ in weights, images, number of images, labels, defense and configuration."""
    problems = [
        SmallProblem(seed=0),
        SmallProblem(seed=1, know_labels=True),
        SmallProblem(seed=2, n=2),
        SmallProblem(seed=3, defense=Clipping(ClippingConfig(bound=0.1))),
        SmallProblem(seed=4, defense=Pruning(PruningConfig(ratio=0.5))),
        SmallProblem(seed=5),
    ]
    configs = [
        DlgConfig(iterations=1),
        DlgConfig(iterations=2, restarts=2),
        DlgConfig(iterations=1, restarts=3),
    ]
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


def solve(attack, tasks, env=None):
    answers = list(attack.solve(tasks, env or SmallEnv()))
    assert sorted(answer.task_id for answer in answers) == sorted(task.task_id for task in tasks)
    return {answer.task_id: answer for answer in answers}


def check_same(one, other):
    assert torch.equal(one.images, other.images)
    assert one.objective == other.objective
    assert one.gradient_evaluations == other.gradient_evaluations
    if one.labels is not None:
        assert torch.equal(one.labels, other.labels)


@pytest.fixture(scope="module", name="alone")
def alone_fixture():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(shipped().models["cpu"], "lenet", Choice("layers", 3))
        return {task.task_id: solve(Dlg(), [task])[task.task_id] for task in TASKS}


@settings(max_examples=8, deadline=None, derandomize=True)
@given(mix=st.permutations(range(len(TASKS))).flatmap(lambda p: st.integers(2, len(p)).map(lambda k: p[:k])))
def test_any_mix_of_tasks_gives_the_answers_of_each_alone(alone, mix):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(shipped().models["cpu"], "lenet", Choice("layers", 3))
        together = solve(Dlg(), [TASKS[index] for index in mix])
    for task_id, answer in together.items():
        check_same(answer, alone[task_id])


@pytest.mark.parametrize(
    ("attack", "config", "problem"),
    [
        (Dlg(), DlgConfig(iterations=1, restarts=2, tolerance=0), SmallProblem()),
        (Dlg(), DlgConfig(iterations=1), SmallProblem(n=2, channels=3)),
        (Idlg(), IdlgConfig(iterations=1), SmallProblem()),
        (InvertingGradients(), InvertingGradientsConfig(iterations=9, restarts=2), SmallProblem(n=2)),
        (
            InvertingGradients(),
            InvertingGradientsConfig(iterations=9, cost="l2", signed=False),
            SmallProblem(),
        ),
        (
            InvertingGradients(),
            InvertingGradientsConfig(iterations=9, boxed=False),
            SmallProblem(kind="delta"),
        ),
    ],
)
@pytest.mark.parametrize("allowed", [None, 5])
def test_lanes_do_what_the_plain_loop_does(monkeypatch, attack, config, problem, allowed):
    task = problem.attack_task(config, max_evaluations=allowed)
    lanes, loop = SmallEnv(), SmallEnv()
    fast = solve(attack, [task], lanes)["small"]
    monkeypatch.setitem(shipped().models["cpu"], "lenet", REFERENCE)
    plain = solve(attack, [task], loop)["small"]
    assert fast.gradient_evaluations == plain.gradient_evaluations
    assert fast.lane_iterations == plain.lane_iterations
    torch.testing.assert_close(fast.images, plain.images, atol=0.05, rtol=0)
    assert fast.objective == pytest.approx(plain.objective, rel=0.05)
    pairs = zip(lanes.snapshots["small"], loop.snapshots["small"], strict=True)
    for one, other in pairs:
        assert one.iteration == other.iteration
        assert one.restart == other.restart
        assert one.best == pytest.approx(other.best, rel=0.05)


@pytest.mark.usefixtures("narrow")
def test_an_adaptive_attacker_in_a_lane_mirrors_as_the_plain_loop_does(monkeypatch):
    tasks = [task for task in TASKS if task.adaptive and task.config.restarts == 1]
    assert len(tasks) == 2
    fast = solve(Dlg(), tasks)
    monkeypatch.setitem(shipped().models["cpu"], "lenet", REFERENCE)
    plain = solve(Dlg(), tasks)
    for task_id, answer in fast.items():
        torch.testing.assert_close(answer.images, plain[task_id].images, atol=0.05, rtol=0)


@pytest.mark.usefixtures("narrow")
def test_tasks_are_pulled_as_lanes_fall_idle():
    pulled = []

    def source():
        for number in range(9):
            pulled.append(number)
            config = DlgConfig(iterations=1 + number % 2)
            yield SmallProblem(seed=number).attack_task(config, task_id=str(number))

    answers = Dlg().solve(source(), SmallEnv())
    next(answers)
    assert len(pulled) <= 5
    assert len(list(answers)) == 8


@pytest.mark.usefixtures("narrow")
def test_a_task_that_fails_fails_alone():
    whole = SmallProblem().attack_task(DlgConfig(iterations=1), task_id="whole")
    observation = whole.observation
    view = observation.history[-1]

    def with_update(task_id, change):
        tensors = {name: change(tensor) for name, tensor in view.update.tensors.items()}
        changed = replace(view, update=replace(view.update, tensors=tensors))
        return replace(whole, task_id=task_id, observation=replace(observation, history=(changed,)))

    tasks = [
        with_update("nan", lambda tensor: tensor * float("nan")),
        with_update("misshapen", lambda tensor: tensor.flatten()[:3]),
        whole,
        replace(whole, task_id="headless", config=DlgConfig(iterations=1)),
    ]
    answers = solve(Dlg(), tasks)
    assert isinstance(answers["nan"], TaskFailure)
    assert "finite" in answers["nan"].error
    assert isinstance(answers["misshapen"], TaskFailure)
    assert "Traceback" in answers["misshapen"].traceback
    check_same(answers["whole"], solve(Dlg(), [whole])["whole"])
    check_same(answers["headless"], answers["whole"])


class Stopping(SmallEnv):
    """Stops one task."""

    def stopping(self, task_id):
        return task_id == "1"


@pytest.mark.usefixtures("narrow")
def test_a_stopped_task_leaves_its_lane():
    tasks = [SmallProblem(seed=i).attack_task(DlgConfig(iterations=2), task_id=str(i)) for i in range(5)]
    answers = solve(Dlg(), tasks, Stopping())
    assert answers["1"] == TaskFailure("1", "stopped")
    assert sum(isinstance(answer, Reconstruction) for answer in answers.values()) == 4


def test_running_out_of_memory_is_everyones(monkeypatch):
    task = SmallProblem().attack_task(DlgConfig(iterations=1))

    class Greedy(SmallEnv):
        def record(self, task_id, snapshot):
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        list(Dlg().solve([task], Greedy()))


def test_answers_say_how_they_were_computed(monkeypatch):
    task = SmallProblem().attack_task(DlgConfig(iterations=1))
    chosen = shipped().models["cpu"]["lenet"]
    answer = solve(Dlg(), [task])["small"]
    assert (answer.formulation, answer.lane_width) == chosen
    monkeypatch.setitem(shipped().models["cpu"], "lenet", REFERENCE)
    answer = solve(Dlg(), [task])["small"]
    assert (answer.formulation, answer.lane_width) == ("reference", 1)


def test_the_table_names_formulations_that_exist_and_widths_that_keep_bits():
    table = shipped()
    for choice in [*table.models["cpu"].values(), *table.otherwise.values()]:
        assert choice.formulation in (*FORMULATIONS, "native", "reference")
        assert choice.lanes == 1 or choice.lanes % 16 == 0


@pytest.mark.parametrize("lanes", [NATIVE, Choice("layers", 16), REFERENCE])
def test_an_error_in_the_answer_is_that_tasks_alone(lanes):
    """What takes a defense out of a batch is a plug-in's code."""

    def broken(images, labels):
        raise RuntimeError("not invertible")

    tasks = [SmallProblem(seed=i).attack_task(DlgConfig(iterations=1), task_id=str(i)) for i in range(3)]
    tasks[1] = replace(tasks[1], adaptive=True, unperturb=broken)
    with using(EngineTable({}, {"cpu": lanes})):
        answers = {answer.task_id: answer for answer in Dlg().solve(tasks, SmallEnv())}
    assert "not invertible" in answers["1"].error
    assert all(isinstance(answers[name], Reconstruction) for name in "02")
