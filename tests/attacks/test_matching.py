import itertools
from dataclasses import replace

import pytest
import torch

from attacks.base import Reconstruction, TaskFailure
from attacks.catalog import DlgConfig, IdlgConfig, InvertingGradientsConfig
from attacks.dlg import Dlg
from attacks.engine.table import REFERENCE, shipped
from attacks.idlg import Idlg
from attacks.inverting_gradients import InvertingGradients
from defenses.catalog import ClippingConfig, GaussianConfig
from defenses.clipping import Clipping
from defenses.gaussian import Gaussian
from harness.testing import SmallEnv, SmallProblem


class CountingEnv(SmallEnv):
    """Counts how often the models it builds are evaluated with a graph, that is, differentiated."""

    def __init__(self):
        super().__init__()
        self.evaluations = 0

    def build(self, state):
        def count(module, args):
            self.evaluations += torch.is_grad_enabled()

        model = super().build(state)
        model.register_forward_pre_hook(count)
        return model


@pytest.mark.parametrize(
    ("attack", "config"),
    [
        (Dlg(), DlgConfig(iterations=4, restarts=2, tolerance=0)),
        (Idlg(), IdlgConfig(iterations=4, restarts=2)),
        (InvertingGradients(), InvertingGradientsConfig(iterations=7, restarts=3)),
    ],
)
@pytest.mark.parametrize("allowed", [None, 3, 31])
def test_gradient_evaluations_are_counted_exactly(monkeypatch, attack, config, allowed):
    """In the plain loop, which evaluates the model itself; `engine/test_solver.py` compares lanes with it."""
    monkeypatch.setitem(shipped().models["cpu"], "lenet", REFERENCE)
    env = CountingEnv()
    task = SmallProblem().attack_task(config, max_evaluations=allowed)
    answer = next(attack.solve([task], env))
    assert answer.gradient_evaluations == env.evaluations > 0
    assert allowed is None or answer.gradient_evaluations <= allowed


def test_told_to_stop_a_task_fails_as_stopped():
    small = SmallProblem()
    task = small.attack_task(InvertingGradientsConfig(iterations=1000))
    env = small.env(stop_after=2)
    assert list(InvertingGradients().solve([task], env)) == [TaskFailure("small", "stopped")]
    assert env.snapshots["small"][-1].iteration == 0


def test_an_error_fails_its_own_task_only():
    small = SmallProblem(kind="delta", steps=2)
    config = InvertingGradientsConfig(iterations=2, unroll=True)

    def broken(images, labels, sent, stream):
        raise ValueError("broken client")

    tasks = [
        replace(small.attack_task(config, task_id="broken"), simulate=broken),
        small.attack_task(config, task_id="whole"),
    ]
    first, second = InvertingGradients().solve(tasks, small.env())
    assert first.error == "ValueError: broken client"
    assert "Traceback" in first.traceback
    assert isinstance(second, Reconstruction)


def test_running_out_of_memory_is_not_a_task_failure():
    small = SmallProblem(kind="delta", steps=2)

    def greedy(images, labels, sent, stream):
        raise torch.OutOfMemoryError

    config = InvertingGradientsConfig(iterations=2, unroll=True)
    task = replace(small.attack_task(config), simulate=greedy)
    with pytest.raises(torch.OutOfMemoryError):
        list(InvertingGradients().solve([task], small.env()))


def with_update(task, change):
    view = task.observation.history[-1]
    tensors = {name: change(tensor) for name, tensor in view.update.tensors.items()}
    view = replace(view, update=replace(view.update, tensors=tensors))
    return replace(task, observation=replace(task.observation, history=(view,)))


@pytest.mark.parametrize("config", [DlgConfig(iterations=3), InvertingGradientsConfig(iterations=3)])
def test_an_update_that_is_not_finite_is_a_clear_failure(config):
    small = SmallProblem(know_labels=True)
    attack = Dlg() if isinstance(config, DlgConfig) else InvertingGradients()
    task = with_update(small.attack_task(config), lambda tensor: tensor * float("nan"))
    (answer,) = attack.solve([task], small.env())
    assert isinstance(answer, TaskFailure)
    assert "finite" in answer.error


def test_an_objective_that_stops_being_finite_ends_at_the_last_finite_iterate():
    """The client breaks at the third evaluation: what is left is the state of the second."""
    small = SmallProblem(kind="delta", steps=2)

    def task(iterations, broken_from):
        whole = small.attack_task(InvertingGradientsConfig(iterations=iterations, unroll=True, decay=False))
        calls = []

        def simulate(*args):
            update = whole.simulate(*args)
            calls.append(update)
            if len(calls) < broken_from:
                return update
            return replace(update, tensors={k: v * float("inf") for k, v in update.tensors.items()})

        return replace(whole, simulate=simulate)

    (broken,) = InvertingGradients().solve([task(9, broken_from=3)], small.env())
    (short,) = InvertingGradients().solve([task(1, broken_from=99)], small.env())
    assert torch.equal(broken.images, short.images)
    assert broken.objective == short.objective


def test_snapshots_are_spread_over_the_run_and_end_with_the_result():
    small = SmallProblem()
    env = small.env()
    (answer,) = InvertingGradients().solve([small.attack_task(InvertingGradientsConfig(iterations=300))], env)
    snapshots = env.snapshots["small"]
    assert len(snapshots) == 31
    assert [s.iteration for s in snapshots] == list(range(0, 301, 10))
    assert all(a.best >= b.best for a, b in itertools.pairwise(snapshots))
    assert torch.equal(snapshots[-1].images, answer.images)
    assert snapshots[-1].objective == answer.objective


def test_an_adaptive_attacker_matches_a_clipped_gradient_by_length():
    small = SmallProblem(defense=Clipping(ClippingConfig(bound=0.1)))
    config = DlgConfig(iterations=10)
    static, adaptive = (
        next(Dlg().solve([small.attack_task(config, adaptive=adaptive)], small.env()))
        for adaptive in (False, True)
    )
    error = [(answer.images - small.images).square().mean() for answer in (static, adaptive)]
    assert error[1] < error[0] / 10


def test_the_mirror_acts_in_units_of_the_update():
    """A clipped delta: its observed norm bounds lr x steps x gradient, not the gradient."""
    small = SmallProblem(kind="delta", steps=1, defense=Clipping(ClippingConfig(bound=1.0)))
    config = DlgConfig(iterations=40, restarts=3)
    (answer,) = Dlg().solve([small.attack_task(config, adaptive=True)], small.env())
    assert (answer.images - small.images).square().mean() < 1e-3


def test_more_noise_leaks_less():
    errors = []
    for sigma in (0.0, 1e-2, 0.1):
        small = SmallProblem(defense=Gaussian(GaussianConfig(sigma=sigma)))
        (answer,) = Dlg().solve([small.attack_task(DlgConfig(iterations=20))], small.env())
        errors.append(float((answer.images - small.images).square().mean()))
    assert errors == sorted(errors)


def test_an_aggregate_is_matched_with_as_many_images():
    small = SmallProblem(n=2, observes="aggregate")
    (answer,) = InvertingGradients().solve(
        [small.attack_task(InvertingGradientsConfig(iterations=3))], small.env()
    )
    assert len(answer.images) == 2


def test_an_adaptive_attacker_sees_through_a_defense_that_acts_before_the_gradient(dimming):
    """Without a mirror it works through the simulated client: images come out as they were before dimming."""
    small = SmallProblem(defense=dimming)
    config = DlgConfig(iterations=40, restarts=3)
    static, adaptive = (
        next(Dlg().solve([small.attack_task(config, adaptive=known, mirrored=False)], small.env()))
        for known in (False, True)
    )
    assert (static.images - small.images / 2).square().mean() < 1e-3
    assert (adaptive.images - small.images).square().mean() < 1e-3
