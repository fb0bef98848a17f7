"""The objective and its gradient over lanes against the plain loop, one lane at a time."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

from attacks.engine.formulations import FORMULATIONS
from attacks.engine.losses import lane_losses, probabilities
from attacks.engine.objective import LaneObjective, ObjectiveSpec, Target
from attacks.objectives import COSTS, total_variation
from fl.losses import task_loss
from fl.specs import Task

LANES = 3
MULTICLASS = Task("multiclass", 7)
CASES = {
    "lenet": ("lenet", {"convs": 3}),
    "lenet_relu": ("lenet", {"convs": 4, "activation": "relu"}),
    "convnet": ("convnet", {"width": 4}),
    "convnet_plain": ("convnet", {"width": 4, "batch_norm": False}),
    "resnet20": ("resnet20", {}),
}


def random(generator, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


class Lanes:
    """Lanes with weights, targets, labels and variables of their own, and the same computed one by one."""

    def __init__(self, models, formulation="layers", *, n=1, seed=0, dtype=torch.float64, **changes):
        self.models, self.n = models, n
        generator = torch.Generator().manual_seed(seed)
        names = tuple(name for name, _ in models[0].named_parameters())
        spec = ObjectiveSpec(MULTICLASS, n, (3, 16, 16), names, names, "l2", None, True, False, False)
        self.spec = replace(spec, **changes)
        task = self.spec.task
        self.labels = random(generator, len(models), n, task.outputs, dtype=dtype).softmax(2)
        self.values = random(generator, len(models), self.spec.variables, dtype=dtype)
        self.values[:, self.spec.pixels + (n * task.outputs if self.spec.joint else 0) :] = 0
        self.variation = [0.0, 0.1, 2.0][: len(models)]
        like = next(models[0].parameters()).detach()
        computed = FORMULATIONS[formulation](models[0], len(models))
        self.objective = LaneObjective(self.spec, computed, len(models), like)
        self.observed = []
        for lane, model in enumerate(models):
            observed = {
                k: 0.1 * random(generator, *p.shape, dtype=dtype) for k, p in model.named_parameters()
            }
            self.observed.append(observed)
            tensors = {k: v.detach() for k, v in model.state_dict().items()}
            labels = None if self.spec.joint else self.labels[lane]
            target = Target(tensors, observed, labels, self.variation[lane], 1.0, None)
            self.objective.load(lane, target)

    def one(self, lane):
        """Total and gradient of a lane by the plain loop's own functions."""
        spec, values = self.spec, self.values[lane].clone().requires_grad_()
        inputs = values[: spec.pixels].view(self.n, *spec.shape)
        labels = self.labels[lane]
        if spec.joint:
            logits = values[spec.pixels :][: self.n * spec.task.outputs].view(self.n, -1)
            labels = logits.softmax(1) if spec.task.kind == "multiclass" else logits.sigmoid()
        model = self.models[lane]
        loss = task_loss(spec.task, model(inputs), labels)
        parameters = [model.get_parameter(name) for name in spec.names]
        gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
        dummy = dict(zip(spec.names, gradients, strict=True))
        observed = {name: self.observed[lane][name] for name in spec.matched}
        weights = None if spec.weights is None else dict(spec.weights)
        total = COSTS[spec.cost](dummy, observed, weights)
        if spec.varied:
            total = total + self.variation[lane] * total_variation(inputs)
        return total.detach(), torch.autograd.grad(total, values)[0]

    def check(self, *, rtol=1e-9):
        evaluated = self.objective.evaluate(self.values)
        for lane in range(len(self.models)):
            total, gradient = self.one(lane)
            torch.testing.assert_close(evaluated.total[lane], total, rtol=rtol, atol=0)
            error = (evaluated.gradients[lane] - gradient).norm() / gradient.norm()
            assert error < 10 * rtol
            assert gradient.norm() > 0


def three(build, case, **more):
    name, config = CASES[case]
    return [build(name, seed=seed, **config, **more) for seed in range(LANES)]


@pytest.mark.parametrize(("case", "formulation", "n"), list(product(CASES, ("layers", "vmap"), (1, 2))))
def test_every_lane_is_the_plain_loop(build, case, formulation, n):
    Lanes(three(build, case), formulation, n=n).check()


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_cost(build, cost, weighted):
    models = three(build, "convnet")
    names = [name for name, _ in models[0].named_parameters()]
    weights = tuple((name, 0.5**i) for i, name in enumerate(names)) if weighted else None
    Lanes(models, cost=cost, weights=weights).check()


@pytest.mark.parametrize("task", [MULTICLASS, Task("binary", 2), Task("multilabel", 4)])
@pytest.mark.parametrize("joint", [False, True])
def test_every_task_with_labels_given_and_optimised(build, task, joint):
    models = [build("lenet", seed=seed, task=task) for seed in range(LANES)]
    Lanes(models, n=2, task=task, joint=joint).check()


def test_matching_some_of_the_tensors(build):
    models = three(build, "resnet20")
    names = tuple(name for name, _ in models[0].named_parameters())
    Lanes(models, matched=names[3:20:4]).check()


def test_frozen_parameters_are_not_observed(build):
    models = three(build, "resnet20")
    names = tuple(name for name, _ in models[0].named_parameters() if "norm" not in name)
    Lanes(models, names=names, matched=names).check()


def test_in_train_mode_a_lane_has_statistics_of_its_own(build):
    Lanes(three(build, "resnet20", mode="train"), n=3).check(rtol=1e-8)


def test_in_single_precision_lanes_are_within_rounding(build):
    """1e-5 of the loss and 1e-4 of the gradient: smooth units, for rounding moves kinks."""
    lanes = Lanes([model.float() for model in three(build, "lenet")], dtype=torch.float32)
    evaluated = lanes.objective.evaluate(lanes.values)
    for lane in range(LANES):
        total, gradient = lanes.one(lane)
        torch.testing.assert_close(evaluated.total[lane], total, rtol=1e-5, atol=0)
        assert (evaluated.gradients[lane] - gradient).norm() < 1e-4 * gradient.norm()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_nothing_leaks_between_lanes(build, case, mode):
    """Whatever the other lanes hold, even infinities, a lane's bits stay."""
    lanes = Lanes(three(build, case, mode=mode), n=2)
    before = lanes.objective.evaluate(lanes.values)
    for other, change in ((0, 3.0), (2, float("inf"))):
        lanes.values[other] *= change
    after = lanes.objective.evaluate(lanes.values)
    assert torch.equal(before.gradients[1], after.gradients[1])
    assert before.total[1] == after.total[1]
    assert before.total[0] != after.total[0]


@pytest.mark.parametrize("formulation", ["layers", "difference"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_bits_do_not_depend_on_the_lane(build, formulation, case, n):
    name, config = CASES[case]
    model = build(name, **config).float()
    names = tuple(name for name, _ in model.named_parameters())
    spec = ObjectiveSpec(MULTICLASS, n, (3, 16, 16), names, names, "cosine", None, True, True, False)
    objective = LaneObjective(spec, FORMULATIONS[formulation](model, 16), 16, torch.zeros(1))
    generator = torch.Generator().manual_seed(0)
    observed = {k: torch.randn(p.shape, generator=generator) for k, p in model.named_parameters()}
    tensors = {k: v.detach() for k, v in model.state_dict().items()}
    for lane in range(16):
        objective.load(lane, Target(tensors, observed, None, 0.1, 1.0, None))
    values = torch.randn(spec.variables, generator=generator).expand(16, -1)
    gradients = objective.evaluate(values.clone()).gradients
    assert all(torch.equal(row, gradients[0]) for row in gradients)


@pytest.mark.parametrize(("case", "n"), list(product(CASES, (1, 2))))
def test_the_difference_is_the_derivative(monkeypatch, build, case, n):
    """In double precision a smaller step leaves only its own error; in single precision signs survive."""
    monkeypatch.setattr("attacks.engine.difference.RELATIVE_STEP", 1e-8)
    Lanes(three(build, case), "difference", n=n).check(rtol=1e-6)


@pytest.mark.parametrize("case", ["convnet", "convnet_plain", "resnet20"])
def test_the_difference_in_single_precision_has_the_right_direction(build, case):
    models = [model.float() for model in three(build, case)]
    lanes = Lanes(models, "difference", dtype=torch.float32, cost="cosine")
    gradients = lanes.objective.evaluate(lanes.values).gradients
    for lane in range(LANES):
        _, exact = lanes.one(lane)
        assert torch.cosine_similarity(gradients[lane], exact, dim=0) > 0.999


def test_the_difference_does_not_leak_and_leaves_the_weights():
    pool = nn.Sequential(nn.LeakyReLU(0.2), nn.MaxPool2d(3, 2, padding=1), nn.Tanh())
    models = [Net(pool, 64).double() for _ in range(LANES)]
    lanes = Lanes(models, "difference", n=2)
    before = lanes.objective.evaluate(lanes.values)
    lanes.check(rtol=1e-4)
    lanes.values[0] *= float("inf")
    after = lanes.objective.evaluate(lanes.values)
    assert torch.equal(before.gradients[1:], after.gradients[1:])


class Net(nn.Module):
    """A convolution, whatever a test puts in the middle, and a head."""

    def __init__(self, middle, features=4 * 8 * 8):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.middle = middle
        self.head = nn.Linear(features, 7)

    def forward(self, x):
        return self.head(self.middle(self.conv(x)).flatten(1))


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.side = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return torch.cat([x, self.side(x), torch.relu(x)], 1)


@pytest.mark.parametrize(
    ("middle", "features"),
    [
        (nn.AvgPool2d(2), 64),
        (nn.MaxPool2d(3, 2), 36),
        (nn.AdaptiveAvgPool2d(2), 16),
        (nn.Conv2d(4, 5, (2, 3), stride=(1, 2), padding=(0, 1), bias=False), 5 * 7 * 4),
        (nn.Conv2d(4, 5, 1, stride=3), 45),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), nn.SiLU()), 256),
        (nn.Sequential(nn.Flatten(), nn.Linear(256, 10), nn.Tanh()), 10),
        (Joined(), 640),
    ],
)
def test_layers_that_models_are_made_of(middle, features):
    torch.nn.init.normal_(
        next(middle.parameters(), torch.zeros(1)), generator=torch.Generator().manual_seed(1)
    )
    models = [Net(middle, features).double().eval() for _ in range(LANES)]
    Lanes(models, n=2).check()


class MeanOverBatch(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class MeanOverChannels(nn.Module):
    def forward(self, x):
        return x - x.mean(1, keepdim=True)


class Shifted(nn.Module):
    def forward(self, x):
        return x[:, 1:] + x[:, :-1]


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("middle", "words"),
    [
        (MeanOverBatch(), "alone"),
        (MeanOverChannels(), "alone"),
        (Shifted(), "alone"),
        (Branching(), "traced"),
        (nn.GroupNorm(2, 4), "GroupNorm"),
        (nn.Dropout(), "Dropout"),
        (nn.Conv2d(4, 4, 3, groups=2), "grouped"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), "padded"),
    ],
)
def test_what_might_look_across_lanes_is_refused(middle, words):
    from attacks.engine.graphs import UnsupportedModelError

    with pytest.raises(UnsupportedModelError, match=words):
        FORMULATIONS["layers"](Net(middle).train(), LANES)


@pytest.mark.parametrize("task", [MULTICLASS, Task("binary", 2), Task("multilabel", 4)])
def test_lane_losses_are_those_of_each_lane(task):
    generator = torch.Generator().manual_seed(0)
    logits = random(generator, LANES, 5, task.outputs)
    high = task.classes if task.kind == "multiclass" else 2
    shape = (5,) if task.kind != "multilabel" else (5, task.outputs)
    labels = torch.randint(high, (LANES, *shape), generator=generator)
    soft = torch.stack([probabilities(row, task).double() for row in labels])
    losses = lane_losses(task, logits, soft)
    for lane in range(LANES):
        expected = task_loss(task, logits[lane], labels[lane])
        torch.testing.assert_close(losses[lane], expected)
