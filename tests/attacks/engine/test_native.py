"""The native kernel against the plain loop's own functions, and where there is none."""

import logging
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

from attacks.engine.graphs import UnsupportedModelError
from attacks.engine.native import build as native_build
from attacks.engine.native.chain import chain
from attacks.engine.native.lane import Lane
from attacks.engine.objective import ObjectiveSpec, Target
from attacks.objectives import COSTS
from fl.losses import task_loss
from fl.specs import Task

MULTICLASS = Task("multiclass", 7)
needs_compiler = pytest.mark.skipif(native_build.compiler() is None, reason="no C++ compiler")


class Case:
    """A target with a lane of its own, and the same computed by torch in double precision."""

    def __init__(self, model, *, n=1, seed=0, shape=(3, 16, 16), **changes):
        self.model = model
        names = tuple(name for name, _ in model.named_parameters())
        spec = ObjectiveSpec(MULTICLASS, n, shape, names, names, "l2", None, False, False, False)
        self.spec = replace(spec, **changes)
        self.generator = torch.Generator().manual_seed(seed)
        outputs = self.spec.task.outputs
        self.labels = self.random(n, outputs).softmax(1)
        self.observed = {name: 0.1 * self.random(*p.shape) for name, p in model.named_parameters()}
        self.lane = Lane(self.spec, model.float())
        self.lane.load(self.target)

    def random(self, *shape):
        return torch.randn(shape, generator=self.generator)

    def point(self, scale=1.0):
        logits = self.spec.images * self.spec.task.outputs if self.spec.joint else 0
        return scale * self.random(self.spec.pixels + logits)

    @property
    def target(self):
        tensors = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        labels = None if self.spec.joint else self.labels
        return Target(tensors, self.observed, labels, 0.0, 1.0, None)

    def expected(self, values):
        """Total and gradient by automatic differentiation."""
        spec, values = self.spec, values.double().requires_grad_()
        model = self.model.double()
        inputs = values[: spec.pixels].view(spec.images, *spec.shape)
        labels = self.labels.double()
        if spec.joint:
            logits = values[spec.pixels :].view(spec.images, -1)
            labels = logits.softmax(1) if spec.task.kind == "multiclass" else logits.sigmoid()
        loss = task_loss(spec.task, model(inputs), labels)
        parameters = [model.get_parameter(name) for name in spec.names]
        gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
        dummy = dict(zip(spec.names, gradients, strict=True))
        observed = {name: self.observed[name].double() for name in spec.matched}
        total = COSTS[spec.cost](dummy, observed, None if spec.weights is None else dict(spec.weights))
        (gradient,) = torch.autograd.grad(total, values)
        model.float()
        return total.item(), gradient

    def check(self, *, scales=(1.0, 0.1, 3.0)):
        for scale in scales:
            values = self.point(scale)
            self.lane.start(values)
            assert torch.equal(self.lane.values, values)
            total, gradient = self.expected(values)
            assert self.lane.evaluate() == pytest.approx(total, rel=1e-5)
            assert (self.lane.gradient - gradient).norm() < 1e-4 * gradient.norm()
            assert gradient.norm() > 0


@needs_compiler
@pytest.mark.parametrize(
    ("config", "shape", "n"),
    [
        ({"convs": 3}, (3, 32, 32), 1),
        ({"convs": 2}, (1, 16, 16), 3),
        ({"convs": 4, "activation": "tanh"}, (2, 19, 19), 3),
        ({"convs": 3, "activation": "relu"}, (3, 16, 16), 1),
    ],
)
@pytest.mark.parametrize("joint", [False, True])
def test_the_zoos_lenets(build, config, shape, n, joint):
    model = build("lenet", size=shape[1], channels=shape[0], **config)
    Case(model, n=n, shape=shape, joint=joint).check()


@needs_compiler
@pytest.mark.parametrize("task", [MULTICLASS, Task("binary", 2), Task("multilabel", 20)])
@pytest.mark.parametrize(("joint", "n"), list(product([False, True], [1, 3])))
def test_every_task(build, task, joint, n):
    Case(build("lenet", task=task), task=task, n=n, joint=joint).check()


@needs_compiler
@pytest.mark.parametrize("cost", ["l2", "cosine"])
def test_some_tensors_and_weights(build, cost):
    model = build("lenet")
    names = [name for name, _ in model.named_parameters()]
    weights = tuple((name, 0.5**i) for i, name in enumerate(names))
    Case(model, cost=cost, matched=tuple(names[1:5]), weights=weights).check()
    Case(model, cost=cost, names=tuple(names[:3]), matched=tuple(names[:3])).check()


class Functional(nn.Module):
    """Activations as functions and as methods, and more than one hidden linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 20, (3, 4), stride=(1, 2), padding=(0, 3), bias=False)
        self.hidden = nn.Linear(20 * 14 * 10, 33)
        self.head = nn.Linear(33, 7)

    def forward(self, x):
        return self.head(torch.tanh(self.hidden(torch.sigmoid(self.conv(x)).flatten(1))))


@needs_compiler
@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(3, 5, 1, stride=3), nn.Sigmoid(), nn.Flatten(), nn.Linear(5 * 36, 7)],
        [nn.Conv2d(3, 17, 7, padding=5), nn.Tanh(), nn.Conv2d(17, 4, 2, 2), nn.Flatten(), nn.Linear(400, 7)],
        [nn.Flatten(), nn.Linear(768, 24, bias=False), nn.Sigmoid(), nn.Dropout(), nn.Linear(24, 7)],
        [nn.Flatten(), nn.Linear(768, 7)],
        [Functional()],
    ],
)
@pytest.mark.parametrize("n", [1, 2])
def test_other_chains(layers, n):
    model = nn.Sequential(*layers).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.2, 0.2, generator=generator)
    Case(model, n=n).check()


@needs_compiler
def test_what_comes_before_leaves_no_trace(build):
    one, other = Case(build("lenet")), Case(build("lenet", seed=1), seed=1)
    point = one.point()
    one.lane.start(point)
    first = one.lane.step(50), one.lane.values
    assert torch.isfinite(first[1]).all()
    one.lane.load(other.target)
    one.lane.start(point * float("inf"))
    assert one.lane.step(50).dead
    one.lane.load(one.target)
    one.lane.start(point)
    again = one.lane.step(50), one.lane.values
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])


@needs_compiler
@pytest.mark.parametrize(("budget", "steps"), [(2, 4), (5, 2), (40, 1)])
def test_steps_are_torchs(build, budget, steps):
    """For as many evaluations as it takes rounding to grow to a hundredth."""
    case = Case(build("lenet"), joint=True)
    start = case.point()
    case.lane.start(start)
    x = start.double().requires_grad_()
    optimizer = torch.optim.LBFGS([x], lr=1, max_iter=20, max_eval=budget, history_size=100)
    spent = []

    def closure():
        total, gradient = case.expected(x.detach())
        x.grad = gradient
        spent.append(total)
        return total

    for _ in range(steps):
        spent.clear()
        optimizer.step(closure)
        step = case.lane.step(budget)
        assert step.evaluations == len(spent)
        assert step.total == pytest.approx(spent[0], rel=1e-3)
        assert (case.lane.values - x).norm() < 1e-2 * (start - x).norm()


class Bowl:
    """A linear model whose objective is a quadratic form: L-BFGS must match however long it runs."""

    def __init__(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
        with torch.no_grad():
            model[1].weight.copy_(torch.linspace(-1, 1, 32).view(2, 16))
        self.case = Case(model, shape=(1, 4, 4), task=Task("multilabel", 2))


@needs_compiler
def test_more_steps_than_are_remembered():
    """More than 100 moves, so that the oldest pairs make room; torch's total where it ends is reached."""
    case = Bowl().case
    case.lane.start(torch.linspace(-3, 3, 16))
    totals = [case.lane.step(1e9).total for _ in range(8)]
    x = torch.linspace(-3, 3, 16, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.LBFGS([x], lr=1, max_iter=20, history_size=100)

    def closure():
        total, x.grad = case.expected(x.detach())
        return total

    for _ in range(8):
        optimizer.step(closure)
    assert totals[-1] == pytest.approx(case.expected(x.detach())[0], rel=1e-3, abs=1e-6)
    assert totals[-1] <= totals[0]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(768, 768)
        self.head = nn.Linear(768, 7)

    def forward(self, x):
        return self.head(self.layer(self.layer(x.flatten(1))))


class Skipping(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(768, 7)

    def forward(self, x):
        return self.head((x + torch.sigmoid(x)).flatten(1))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Twice(), "twice"),
        (Skipping(), "chain"),
        (nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Flatten(), nn.Linear(588, 7)), "grouped"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(196, 7)), "MaxPool"),
        (nn.Sequential(nn.Sigmoid(), nn.Flatten(), nn.Linear(768, 7)), "here"),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 7), nn.Sigmoid()), "end"),
        (nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(768, 7)), "here"),
    ],
)
def test_what_is_no_chain_is_refused(model, words):
    with pytest.raises(UnsupportedModelError, match=words):
        chain(model, (3, 16, 16))


@needs_compiler
@pytest.mark.parametrize(
    "changes",
    [{"varied": True}, {"mirrored": True}, {"cost": "l1"}, {"names": ("elsewhere",), "matched": ()}],
)
def test_objectives_that_are_refused(build, changes):
    with pytest.raises(UnsupportedModelError):
        Case(build("lenet"), **changes)


def test_double_precision_is_refused(build):
    model = build("lenet")
    spec = ObjectiveSpec(MULTICLASS, 1, (3, 16, 16), (), (), "l2", None, False, False, False)
    with pytest.raises(UnsupportedModelError, match="single"):
        Lane(spec, model)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"LEAKBENCH_NATIVE": "0"}, "switched off"),
        ({"CXX": "no-such-compiler"}, "no C"),
        ({"PATH": ""}, "no C"),
    ],
)
def test_without_a_kernel_the_log_says_why(monkeypatch, caplog, changes, words):
    monkeypatch.delenv("CXX", raising=False)
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    caplog.set_level(logging.INFO)
    assert native_build.library() is None
    assert not native_build.is_possible()
    assert words in caplog.text


def test_a_compiler_that_fails_is_no_reason_to_fail(monkeypatch, caplog, tmp_path):
    broken = tmp_path / "broken-compiler"
    broken.write_text("#!/bin/sh\necho cannot compile >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path / "cache"))
    assert native_build.library() is None
    assert "cannot compile" in caplog.text


@needs_compiler
def test_a_cache_that_is_no_use_costs_a_compilation(monkeypatch, tmp_path):
    """It cannot be written to, or holds what cannot be loaded."""
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("LEAKBENCH_CACHE", str(file))
    assert native_build.library() is not None
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path))
    assert native_build.library() is not None
    (made,) = tmp_path.glob("native/*.so")
    made.unlink()
    made.write_text("spoilt")
    native_build._library.cache_clear()
    assert native_build.library() is not None


@needs_compiler
def test_the_kernel_is_compiled_once(monkeypatch, tmp_path):
    monkeypatch.setenv("LEAKBENCH_CACHE", str(tmp_path))
    assert native_build.library() is native_build.library()
    (made,) = tmp_path.glob("native/*.so")
    stamp = made.stat().st_mtime_ns
    native_build._library.cache_clear()
    assert native_build.library() is not None
    assert made.stat().st_mtime_ns == stamp
