from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.transform import resize

from attacks.catalog import InvertingGradientsConfig
from attacks.objectives import cosine, l2, total_variation
from attacks.problem import Problem
from fl.errors import NotApplicableError
from fl.types import Knowledge
from harness.testing import SmallProblem

CONFIG = InvertingGradientsConfig(iterations=1)


def problem_of(small, *, unroll=False, **changes):
    task = small.attack_task(CONFIG, **changes)
    return Problem.of(task, small.env(), unroll=unroll)


def inputs_of(small):
    return small.image.normalise(small.images)


@pytest.mark.parametrize("cost", [l2, cosine])
def test_derivative_in_images_agrees_with_finite_differences(cost):
    """In float64, central differences of the whole objective along random directions."""
    small = SmallProblem(n=2)
    problem = problem_of(small)
    problem.model.double()
    problem = replace(problem, observed={name: t.double() for name, t in problem.observed.items()})
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, 16, 16, generator=generator, dtype=torch.float64)

    def objective(inputs):
        dummy = problem.gradients(inputs, small.labels)
        return cost(dummy, problem.observed) + 0.1 * total_variation(inputs)

    leaf = x.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(objective(leaf), leaf)
    for _ in range(3):
        direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        step = 1e-6 * direction
        slope = float(objective(x + step).detach() - objective(x - step).detach()) / 2e-6
        assert float((derivative * direction).sum()) == pytest.approx(slope, rel=1e-5)


def test_derivative_in_label_logits_agrees_with_finite_differences():
    small = SmallProblem()
    problem = problem_of(small)
    problem.model.double()
    observed = {name: t.double() for name, t in problem.observed.items()}
    x = inputs_of(small).double() + 0.1
    logits = torch.linspace(-1, 1, 10, dtype=torch.float64).view(1, 10)

    def objective(y):
        return l2(problem.gradients(x, y.softmax(1)), observed)

    leaf = logits.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(objective(leaf), leaf)
    numeric = np.zeros(10)
    for index in range(10):
        step = torch.zeros_like(logits)
        step[0, index] = 1e-6
        numeric[index] = float(objective(logits + step).detach() - objective(logits - step).detach()) / 2e-6
    np.testing.assert_allclose(derivative[0].numpy(), numeric, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n", [1, 3])
def test_the_private_images_match_exactly(n):
    small = SmallProblem(n=n)
    problem = problem_of(small)
    dummy = problem.gradients(inputs_of(small), small.labels)
    assert float(l2(dummy, problem.observed).detach()) < 1e-9


def test_a_delta_of_one_step_is_the_gradient():
    gradient, delta = SmallProblem(n=2), SmallProblem(n=2, kind="delta", steps=1)
    inferred = problem_of(delta).observed
    error = sum((inferred[k] - g).square().sum() for k, g in gradient.update.tensors.items()).sqrt()
    norm = sum(g.square().sum() for g in gradient.update.tensors.values()).sqrt()
    assert float(error / norm) < 1e-3


def test_unrolled_steps_reproduce_the_delta_and_one_step_does_not():
    small = SmallProblem(n=2, kind="delta", steps=5)
    unrolled, single = problem_of(small, unroll=True), problem_of(small)

    def mismatch(problem):
        return float(cosine(problem.gradients(inputs_of(small), small.labels), problem.observed).detach())

    assert mismatch(unrolled) < 1e-5
    assert mismatch(single) > 1e-3
    assert unrolled.evaluations == 5
    assert single.evaluations == 1


def test_without_the_learning_rate_only_the_sign_is_known():
    small = SmallProblem(kind="delta", steps=2)
    task = small.attack_task(CONFIG)
    task = replace(task, observation=replace(task.observation, knowledge=Knowledge()))

    problem = Problem.of(task, small.env(), unroll=False)

    for name, tensor in small.update.tensors.items():
        assert torch.equal(problem.observed[name], -tensor)


def test_only_shared_tensors_are_differentiated():
    small = SmallProblem()
    task = small.attack_task(CONFIG)
    view = task.observation.history[0]
    head = {name: t for name, t in view.update.tensors.items() if name.startswith("head")}
    view = replace(view, update=replace(view.update, tensors=head))
    task = replace(task, observation=replace(task.observation, history=(view,)))

    problem = Problem.of(task, small.env(), unroll=False)

    assert set(problem.gradients(inputs_of(small), small.labels)) == {"head.weight", "head.bias"}


def test_matching_puts_no_gradient_on_the_weights():
    small = SmallProblem()
    problem = problem_of(small)
    x = inputs_of(small).requires_grad_()
    torch.autograd.grad(l2(problem.gradients(x, small.labels), problem.observed), x)
    assert all(parameter.grad is None for parameter in problem.model.parameters())


def test_first_guesses_name_neither_defense_nor_attack():
    small = SmallProblem(n=2)
    problem = problem_of(small)
    expected = torch.randn(2, 1, 16, 16, generator=problem.task.streams.torch("first_guess", restart=3))
    assert torch.equal(problem.first_guess("randn", 3), expected)
    uniform = problem.first_guess("rand", 0)
    assert -1 <= float(uniform.min()) < -0.9
    assert 0.9 < float(uniform.max()) <= 1
    assert not problem.first_guess("zeros", 0).any()
    mean = small.image.denormalise(problem.first_guess("mean", 0))
    torch.testing.assert_close(mean, problem.task.public.mean_image.expand(2, 1, 16, 16))


def test_a_picture_is_a_first_guess(tmp_path):
    """A gray ramp of 40 x 60 pixels: the middle 40 x 40, halved."""
    ramp = np.broadcast_to(np.arange(60, dtype=np.uint8) * 4, (40, 60))
    path = tmp_path / "ramp.png"
    Image.fromarray(ramp).save(path)
    for channels in (1, 3):
        small = SmallProblem(n=2, channels=channels)
        problem = problem_of(small)
        guess = small.image.denormalise(problem.first_guess("image", 0, image=str(path)))
        columns = torch.from_numpy(resize(ramp[:, 10:50] / 255, (16, 16), order=1, anti_aliasing=True))
        expected = columns.float().expand(2, channels, 16, 16)
        torch.testing.assert_close(guess, expected, atol=0.02, rtol=0)


def test_jitter_makes_every_image_of_every_restart_differ():
    problem = problem_of(SmallProblem(n=40))
    mean = problem.first_guess("mean", 0)
    noise = [problem.first_guess("mean", restart, jitter=0.05) - mean for restart in (0, 1)]
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0][0], noise[0][1])
    for each in noise:
        assert float(each.std()) == pytest.approx(0.05, rel=0.02)
        assert abs(float(each.mean())) < 1e-3


def test_a_gradient_cannot_be_unrolled():
    with pytest.raises(NotApplicableError, match="weight delta"):
        problem_of(SmallProblem(), unroll=True)


def test_unrolling_needs_the_local_hyperparameters():
    small = SmallProblem(kind="delta", steps=2)
    task = small.attack_task(CONFIG)
    task = replace(task, observation=replace(task.observation, knowledge=Knowledge()))
    with pytest.raises(NotApplicableError, match="local_hyperparameters"):
        Problem.of(task, small.env(), unroll=True)
