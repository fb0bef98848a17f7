"""The exact derivative by hand against autograd, for every way that a layer may compute."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks.engine.direct import DirectFilter, GhostFilter
from attacks.engine.filters import Filter, Scratch, Window
from attacks.engine.formulations import FORMULATIONS
from attacks.engine.graphs import UnsupportedModelError
from attacks.engine.matrices import PointFilter
from attacks.engine.objective import LaneObjective, ObjectiveSpec, Target
from attacks.engine.solver import formulated
from attacks.engine.table import Choice
from attacks.engine.winograd import WinogradFilter
from attacks.objectives import COSTS, total_variation
from fl.losses import task_loss
from fl.specs import Task

MULTICLASS = Task("multiclass", 7)
MODELS = {
    "convnet": ("convnet", {"width": 32}, 32),
    "convnet_plain": ("convnet", {"width": 8, "batch_norm": False}, 16),
    "resnet20": ("resnet20", {}, 16),
    "resnet18": ("resnet18", {"stem": "cifar"}, 32),
    "lenet_relu": ("lenet", {"convs": 4, "activation": "relu"}, 16),
    "densenet121": ("densenet121", {}, 32),
}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def compare(model, *, size, n=1, cost="cosine", joint=False, lanes=1, matched=None, weights=None, scale=0.1):
    """Check total and gradient of the last of some lanes against autograd's."""
    names = tuple(name for name, _ in model.named_parameters())
    matched = names if matched is None else matched(names)
    chosen = None if weights is None else tuple((name, 0.9**i) for i, name in enumerate(names))
    spec = ObjectiveSpec(MULTICLASS, n, (3, size, size), names, matched, cost, chosen, True, joint, False)
    objective = LaneObjective(
        spec, FORMULATIONS["tangent"](model, lanes), lanes, next(model.parameters()).detach()
    )
    observed = {
        name: scale * random(*parameter.shape, seed=i)
        for i, (name, parameter) in enumerate(model.named_parameters())
    }
    labels = random(n, 7).softmax(1)
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    objective.load(lanes - 1, Target(tensors, observed, None if joint else labels, 0.3, 1.0, None))
    for seed in (1, 2):
        values = torch.zeros(lanes, spec.variables, dtype=torch.float64)
        used = spec.pixels + (n * 7 if joint else 0)
        values[-1, :used] = random(used, seed=seed)
        evaluated = objective.evaluate(values)
        total, gradient = autograd(model, spec, values[-1], None if joint else labels, observed)
        torch.testing.assert_close(evaluated.total[-1], total, rtol=1e-9, atol=0)
        assert (evaluated.gradients[-1] - gradient).norm() < 1e-9 * gradient.norm()
        assert gradient.norm() > 0


def autograd(model, spec, values, labels, observed):
    values = values.clone().requires_grad_()
    inputs = values[: spec.pixels].view(spec.images, *spec.shape)
    if labels is None:
        labels = values[spec.pixels : spec.pixels + spec.images * 7].view(-1, 7).softmax(1)
    loss = task_loss(MULTICLASS, model(inputs), labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    dummy = dict(zip(spec.names, gradients, strict=True))
    weights = None if spec.weights is None else dict(spec.weights)
    total = COSTS[spec.cost](dummy, {name: observed[name] for name in spec.matched}, weights)
    total = total + 0.3 * total_variation(inputs)
    return total.detach(), torch.autograd.grad(total, values)[0]


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("n", [1, 2])
def test_it_is_the_plain_loop_at_several_points(build, case, n):
    name, config, size = MODELS[case]
    compare(build(name, size=size, **config), size=size, n=n)


@pytest.mark.parametrize(("cost", "joint", "weights"), list(product(COSTS, (False, True), (None, "falling"))))
def test_every_cost_with_labels_given_and_optimised(build, cost, joint, weights):
    compare(build("resnet20"), size=16, n=2, cost=cost, joint=joint, weights=weights)


@pytest.mark.parametrize("cost", ["cosine", "l2"])
def test_matching_some_of_the_tensors(build, cost):
    compare(build("resnet20"), size=16, cost=cost, matched=lambda names: names[3:20:4])


@pytest.mark.parametrize("cost", ["cosine", "l1"])
def test_the_first_bias_without_its_weight(build, cost):
    """What turns a layer may be its bias alone, before which nothing moves."""
    model = build("convnet", width=4)
    compare(model, size=16, n=2, cost=cost, matched=lambda names: names[1:6:2])
    assert dict(model.named_parameters()).keys() >= {"body.conv1.bias"}
    compare(model, size=16, cost=cost, matched=lambda names: names[1:2])


class Twice(nn.Module):
    def __init__(self, *, shared):
        super().__init__()
        self.one, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(48, 7)
        self.other = nn.Conv2d(3, 3, 3, padding=1) if shared else self.one
        self.other.weight = self.one.weight

    def forward(self, x):
        return self.head(self.other(self.one(x).relu()).flatten(1))


@pytest.mark.parametrize("formulation", ["tangent", "layers", "difference"])
@pytest.mark.parametrize("shared", [True, False])
def test_weights_that_count_twice_are_refused(formulation, shared):
    names = tuple(name for name, _ in Twice(shared=shared).named_parameters())
    spec = ObjectiveSpec(MULTICLASS, 1, (3, 4, 4), names, names, "l2", None, False, False, False)
    with pytest.raises(UnsupportedModelError, match=r"used twice|share a parameter"):
        formulated(spec, Twice(shared=shared), Choice(formulation, 1))


def test_lanes_do_not_meet(build):
    """An empty lane beside a full one, infinities beside numbers: a lane's bits stay."""
    compare(build("convnet", width=4), size=16, lanes=2)
    model = build("convnet", width=4)
    formulation = FORMULATIONS["tangent"](model, 2)
    inputs = random(2, 1, 3, 16, 16)
    labels = torch.full((2, 1, 7), 1 / 7, dtype=torch.float64)
    names = [name for name, _ in model.named_parameters()]
    before = formulation.gradients(inputs, labels, MULTICLASS, names)
    inputs[0] *= float("inf")
    after = formulation.gradients(inputs, labels, MULTICLASS, names)
    assert all(torch.equal(before[name][1], after[name][1]) for name in names)
    assert not all(torch.equal(before[name][0], after[name][0]) for name in names)


def filters(window, weight, observed):
    if window.kernel == (3, 3) and window.stride == (1, 1) == window.padding:
        yield WinogradFilter(weight, observed, window, Scratch())
    if window.kernel == (1, 1) and window.padding == (0, 0):
        yield PointFilter(weight, observed, window, ghost=True)
        yield PointFilter(weight, observed, window, ghost=False)
    yield DirectFilter(weight, observed, window)
    yield GhostFilter(weight, observed, window)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "shape",
    [
        (1, (32, 32), (3, 3), (1, 1), (1, 1)),
        (2, (25, 30), (3, 3), (1, 1), (1, 1)),
        (2, (5, 6), (3, 3), (1, 1), (1, 1)),
        (2, (8, 7), (3, 3), (2, 2), (1, 1)),
        (1, (9, 8), (1, 1), (2, 2), (0, 0)),
        (2, (4, 4), (1, 1), (1, 1), (0, 0)),
        (1, (9, 10), (2, 3), (1, 2), (0, 2)),
        (1, (11, 11), (7, 7), (2, 2), (3, 3)),
        (1, (6, 6), (1, 1), (1, 1), (1, 1)),
    ],
)
def test_every_filter_is_a_convolution_and_its_derivatives(dtype, shape):
    n, size, kernel, stride, padding = shape
    weight, observed = (0.1 * random(6, 4, *kernel, seed=seed).to(dtype) for seed in (1, 2))
    images, tangents = (random(n, 4, *size, seed=seed).to(dtype) for seed in (3, 4))
    window = Window(n, 4, *size, 6, kernel, stride, padding)
    gradient, moved = (random(n, 6, *window.size, seed=seed).to(dtype) for seed in (5, 6))

    def convolve(x, w):
        return F.conv2d(x, w, None, stride, padding)

    def back(x, w, d):
        x, w = (tensor.detach().requires_grad_() for tensor in (x, w))
        return torch.autograd.grad(convolve(x, w), (x, w), d)

    tolerance = {"rtol": 1e-10, "atol": 1e-10} if dtype is torch.float64 else {"rtol": 1e-3, "atol": 2e-4}
    to_images, to_weight = back(images, weight, gradient)
    combined = 0.7 * observed - 0.2 * to_weight
    for candidate in filters(window, weight, observed):
        assert isinstance(candidate, Filter)
        torch.testing.assert_close(candidate.forward(images), convolve(images, weight), **tolerance)
        torch.testing.assert_close(candidate.backward(gradient, wanted=True), to_images, **tolerance)
        torch.testing.assert_close(candidate.gradient, to_weight, **tolerance)
        dot, square = candidate.products()
        torch.testing.assert_close(dot, (to_weight * observed).sum(), **tolerance)
        torch.testing.assert_close(square, to_weight.square().sum(), **tolerance)
        for turn in (lambda c=candidate: c.turn(0.7, -0.2), lambda c=candidate: c.turn_to(combined)):
            turn()
            there = convolve(tangents, weight) + convolve(images, combined)
            torch.testing.assert_close(candidate.tangent(tangents), there, **tolerance)
            torch.testing.assert_close(candidate.tangent(None), convolve(images, combined), **tolerance)
            expected = back(images, weight, moved)[0] + back(images, combined, gradient)[0]
            torch.testing.assert_close(candidate.tangent_backward(moved), expected, **tolerance)


class Middle(nn.Module):
    def __init__(self, middle, features):
        super().__init__()
        self.conv, self.middle = nn.Conv2d(3, 4, 3, padding=1, stride=2), middle
        self.head = nn.Linear(features, 7)

    def forward(self, x):
        hidden = self.middle(self.conv(x))
        return self.head(torch.cat([hidden, hidden], 1).flatten(1))


@pytest.mark.parametrize(
    ("middle", "features"),
    [
        (nn.Sequential(nn.LeakyReLU(0.2), nn.AvgPool2d(2)), 128),
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)), 128),
        (nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.ReLU()), 512),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), nn.Dropout()), 512),
    ],
)
def test_steps_that_models_are_made_of(middle, features):
    compare(Middle(middle, features).double().eval(), size=16, n=2)


class Product(nn.Module):
    def forward(self, x):
        return x * x


class Shifted(nn.Module):
    def forward(self, x):
        return x + 1


@pytest.mark.parametrize("middle", [nn.Sigmoid(), Product(), Shifted(), nn.BatchNorm2d(4).train(), nn.GELU()])
def test_what_is_not_linear_between_kinks_is_refused(middle):
    with pytest.raises(UnsupportedModelError):
        FORMULATIONS["tangent"](Middle(middle, 512), 1)


def test_in_single_precision_it_is_within_rounding(build):
    """Loss 1e-5, gradient 1e-4: leaky units, for rounding moves kinks, and these are gentle ones."""
    model = build("convnet", width=32, size=32).float()
    for name, module in list(model.body.named_children()):
        if isinstance(module, nn.ReLU):
            setattr(model.body, name, nn.LeakyReLU(1.0))
        if isinstance(module, nn.MaxPool2d):
            setattr(model.body, name, nn.AvgPool2d(3))
    names = tuple(name for name, _ in model.named_parameters())
    spec = ObjectiveSpec(MULTICLASS, 1, (3, 32, 32), names, names, "cosine", None, True, False, False)
    objective = LaneObjective(spec, FORMULATIONS["tangent"](model, 1), 1, torch.zeros(1))
    observed = {
        name: random(*p.shape, seed=i).float() for i, (name, p) in enumerate(model.named_parameters())
    }
    labels = random(1, 7).softmax(1).float()
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    objective.load(0, Target(tensors, observed, labels, 0.3, 1.0, None))
    values = random(1, spec.variables).float()
    evaluated = objective.evaluate(values)
    total, gradient = autograd(model, spec, values[0], labels, observed)
    torch.testing.assert_close(evaluated.total[0], total, rtol=1e-5, atol=0)
    assert (evaluated.gradients[0] - gradient).norm() < 1e-4 * gradient.norm()
