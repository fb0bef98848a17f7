"""Every classifier of the zoo in every formulation that takes it: the plain loop's loss and image gradient.

Lanes hold weights, targets and images of their own, so each is a point by itself.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import pytest
import torch

from attacks.engine.formulations import FORMULATIONS
from attacks.engine.graphs import UnsupportedModelError
from attacks.engine.objective import LaneObjective, ObjectiveSpec, Target
from attacks.objectives import COSTS, total_variation
from fl.losses import task_loss
from fl.models import MODELS
from fl.specs import Task
from harness.calibration import SIGNED

LANES = 2
TASK = Task("multiclass", 5)
SMALL = {
    "lenet": ("lenet", 8, {"convs": 2}),
    "lenet_tanh": ("lenet", 8, {"convs": 4, "activation": "tanh"}),
    "lenet_relu": ("lenet", 8, {"convs": 3, "activation": "relu"}),
    "convnet": ("convnet", 12, {"width": 2}),
    "convnet_plain": ("convnet", 12, {"width": 3, "batch_norm": False}),
    "mcnn": ("mcnn", 16, {}),
    "resnet20": ("resnet20", 8, {}),
    "resnet32": ("resnet32", 8, {}),
}
LARGE = {
    "resnet18": ("resnet18", 8, {"stem": "cifar"}),
    "resnet18_imagenet": ("resnet18", 32, {}),
    "resnet50": ("resnet50", 8, {"stem": "cifar"}),
    "densenet121": ("densenet121", 8, {"stem": "cifar"}),
    "vgg16": ("vgg16", 16, {}),
    "vgg16_norm": ("vgg16", 16, {"batch_norm": True}),
}
ZOO = SMALL | LARGE
FOR_LARGE = ("layers", "tangent")
"""What large models are computed by; the others take the same steps for small ones."""
MAIN = ("lenet", "convnet", "resnet20")
SMOOTH = ("lenet", "lenet_tanh")
UNNORMALISED = ("lenet", "lenet_tanh", "lenet_relu", "convnet_plain", "vgg16")
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Of the loss; of the gradient ten times that."""
BOUND = {"difference": SIGNED}
"""Largest relative error of the image gradient of what is approximate (`harness.calibration`)."""


def takes(formulation, case, mode):
    """What each formulation is for."""
    match formulation:
        case "tangent":
            return case not in SMOOTH and (mode == "eval" or case in UNNORMALISED)
        case "vmap":
            return mode == "eval" or case in UNNORMALISED
        case _:
            return True


def pairs(cases, *modes):
    return [
        pytest.param(case, name, marks=pytest.mark.slow if case in LARGE else ())
        for case, name in product(cases, FORMULATIONS)
        if all(takes(name, case, mode) for mode in modes) and (case not in LARGE or name in FOR_LARGE)
    ]


class Point(NamedTuple):
    """What one lane holds, and what the plain loop makes of it."""

    tensors: dict
    observed: dict
    labels: torch.Tensor
    values: torch.Tensor
    total: torch.Tensor
    gradient: torch.Tensor


@lru_cache(maxsize=1)
def models(build, case, mode, dtype):
    name, size, config = ZOO[case]
    return [
        build(name, seed=seed, size=size, task=TASK, mode=mode, **config).to(dtype) for seed in range(LANES)
    ]


@lru_cache(maxsize=2)
def plain(build, case, spec, mode, dtype, point):  # noqa: PLR0917
    """Each lane by the plain loop's own functions."""
    found = []
    for lane, model in enumerate(models(build, case, mode, dtype)):
        generator = torch.Generator().manual_seed(100 * point + lane)
        parameters = dict(model.named_parameters())
        observed = {k: 0.1 * normal(generator, p.shape, dtype) for k, p in parameters.items()}
        labels = normal(generator, (spec.images, TASK.outputs), dtype).softmax(1)
        values = normal(generator, (spec.variables,), dtype)
        values[spec.pixels :] = 0
        tensors = {k: v.detach().clone() for k, v in model.state_dict().items()}
        leaf = values.clone().requires_grad_()
        inputs = leaf[: spec.pixels].view(spec.images, *spec.shape)
        loss = task_loss(TASK, model(inputs), labels)
        gradients = torch.autograd.grad(loss, parameters.values(), create_graph=True)
        dummy = dict(zip(parameters, gradients, strict=True))
        total = COSTS[spec.cost](dummy, observed) + 0.1 * total_variation(inputs)
        (gradient,) = torch.autograd.grad(total, leaf)
        found.append(Point(tensors, observed, labels, values, total.detach(), gradient))
    return found


def normal(generator, shape, dtype):
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


class Lanes:
    """All lanes of a case in one formulation."""

    def __init__(self, build, case, formulation, *, n, cost="cosine", mode="eval", dtype=torch.float64):
        name, size, _ = ZOO[case]
        assert name in MODELS
        self._of = (build, case)
        self._how = (mode, dtype)
        first = models(build, case, mode, dtype)[0]
        names = tuple(name for name, _ in first.named_parameters())
        self.spec = ObjectiveSpec(TASK, n, (3, size, size), names, names, cost, None, True, False, False)
        computed = FORMULATIONS[formulation](first, LANES)
        self._objective = LaneObjective(self.spec, computed, LANES, next(first.parameters()).detach())
        self._bound = BOUND.get(formulation, 10 * TOLERANCE[dtype])

    def points(self, number):
        """Load lanes with a point each, and return the points."""
        points = plain(*self._of, self.spec, *self._how, number)
        for lane, point in enumerate(points):
            target = Target(point.tensors, point.observed, point.labels, 0.1, 1.0, None)
            self._objective.load(lane, target)
        return points

    def evaluate(self, points, *, spoilt=()):
        values = torch.stack([point.values for point in points])
        values[list(spoilt), : self.spec.pixels] = float("nan")
        return self._objective.evaluate(values)

    def check(self, number):
        points = self.points(number)
        evaluated = self.evaluate(points)
        for lane, point in enumerate(points):
            rtol = TOLERANCE[point.total.dtype]
            torch.testing.assert_close(evaluated.total[lane], point.total, rtol=rtol, atol=0)
            error = (evaluated.gradients[lane] - point.gradient).norm() / point.gradient.norm()
            assert error < self._bound, f"lane {lane}: {float(error):.1e}"

    def check_no_leak(self):
        """What is no number in one lane stays there, bit for bit."""
        points = self.points(0)
        before = self.evaluate(points)
        for spoilt in range(LANES):
            after = self.evaluate(points, spoilt=[spoilt])
            kept = [lane for lane in range(LANES) if lane != spoilt]
            assert torch.equal(before.gradients[kept], after.gradients[kept])
            assert torch.equal(before.total[kept], after.total[kept])
            assert after.total[spoilt].isnan()


def test_every_model_of_the_zoo_is_here():
    assert {name for name, *_ in ZOO.values()} == {card.name for card in MODELS if card.origin == "fl"}


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("case", [*SMALL, *(pytest.param(case, marks=pytest.mark.slow) for case in LARGE)])
def test_what_a_formulation_does_not_take_it_refuses(build, case, mode):
    model = models(build, case, mode, torch.float64)[0]
    for name, formulation in FORMULATIONS.items():
        if takes(name, case, mode):
            formulation(model, LANES)
        else:
            with pytest.raises(UnsupportedModelError):
                formulation(model, LANES)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("case", "formulation"), pairs(ZOO, "eval"))
def test_loss_and_gradient_are_the_plain_loops(build, case, formulation, n):
    lanes = Lanes(build, case, formulation, n=n)
    for number in range(1 if case in LARGE else 2):
        lanes.check(number)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("case", "formulation"), pairs(SMALL, "eval"))
def test_single_precision_is_within_rounding(build, case, formulation, n):
    Lanes(build, case, formulation, n=n, dtype=torch.float32).check(0)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(("case", "formulation"), pairs(MAIN, "eval"))
def test_every_cost(build, case, formulation, cost):
    lanes = Lanes(build, case, formulation, n=1, cost=cost)
    lanes.check(0)
    lanes.check(1)


@pytest.mark.parametrize(("case", "formulation"), pairs([c for c in ZOO if c not in UNNORMALISED], "train"))
def test_in_train_mode_every_lane_has_its_own_batch_statistics(build, case, formulation):
    lanes = Lanes(build, case, formulation, n=3, mode="train")
    lanes.check(0)
    lanes.check_no_leak()


@pytest.mark.parametrize(("case", "formulation"), pairs(SMALL, "eval"))
def test_nothing_leaks(build, case, formulation):
    Lanes(build, case, formulation, n=1).check_no_leak()
