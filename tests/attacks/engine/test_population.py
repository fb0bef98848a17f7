from dataclasses import replace

import pytest
import torch
from torch import nn

from attacks.cards_ggl import GglConfig
from attacks.engine.graphs import UnsupportedModelError
from attacks.engine.population import Aim, InTurn, Shared, Vectorised, population
from attacks.problem import Problem
from defenses import DEFENSES
from fl.losses import task_loss
from fl.seeds import Streams
from fl.specs import Task
from harness.testing import SmallProblem

MODELS = {
    "lenet": {"convs": 3},
    "convnet": {"convs": 6, "width": 2},
    "resnet20": {},
}


def candidates(m, n, shape, *, seed=1):
    return torch.randn(m, n, *shape, generator=Streams(seed).torch("candidates"), dtype=torch.float64)


def aim_of(model, *, n=1, cost="l2", task=None, **changes):
    """An aim in double precision at the gradient of random images."""
    small = SmallProblem(channels=3, n=n, know_labels=True, **({} if task is None else {"task": task}))
    problem = Problem.of(small.attack_task(GglConfig()), small.env(), unroll=False)
    labels = problem.known_labels()
    loss = task_loss(small.task, model(candidates(1, n, (3, 16, 16), seed=7)[0]), labels)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, [model.get_parameter(name) for name in names])
    observed = dict(zip(names, gradients, strict=True))
    weights = {name: 1 / (1 + i) for i, name in enumerate(names)}
    return Aim(replace(problem, model=model, observed=observed, **changes), labels, cost, weights)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("formulation", [Shared, Vectorised])
def test_it_equals_one_by_one_evaluation(build, name, n, formulation):
    aim = aim_of(build(name, task=Task("multiclass", 10), **MODELS[name]), n=n)
    inputs = candidates(3, n, (3, 16, 16))
    expected = InTurn(aim).distances(inputs)
    assert expected.min() > 1e-12
    assert torch.allclose(formulation(aim, 3).distances(inputs), expected, rtol=1e-8)


@pytest.mark.parametrize("affine", [True, False])
def test_layers_of_any_geometry(affine):
    """A batch norm behind no convolution, kernels that are no squares, strides and paddings that differ."""
    generator = Streams(0).torch("weights")
    model = nn.Sequential(
        nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), bias=False),
        nn.ReLU(),
        nn.BatchNorm2d(4, affine=affine),
        nn.Conv2d(4, 20, 1, stride=3),
        nn.Sigmoid(),
        nn.Conv2d(20, 40, 3),
        nn.Flatten(),
        nn.Linear(40 * 3, 10, bias=False),
    )
    model = model.double().eval()
    for tensor in (*model.parameters(), model[2].running_mean):
        tensor.data = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    for n in (1, 3):
        aim = aim_of(model, n=n)
        inputs = candidates(4, n, (3, 16, 16))
        found = Shared(aim, 4).distances(inputs)
        assert torch.allclose(found, InTurn(aim).distances(inputs), rtol=1e-8)


@pytest.mark.parametrize("cost", ["l2", "l1", "cosine"])
def test_every_cost_will_do(build, cost):
    aim = aim_of(build("convnet", task=Task("multiclass", 10), **MODELS["convnet"]), cost=cost)
    inputs = candidates(4, 1, (3, 16, 16))
    assert torch.allclose(Shared(aim, 4).distances(inputs), InTurn(aim).distances(inputs), rtol=1e-8)


def test_sigmoid_losses_and_single_precision():
    small = SmallProblem(task=Task("multilabel", 4), n=2, know_labels=True)
    problem = Problem.of(small.attack_task(GglConfig()), small.env(), unroll=False)
    aim = Aim(problem, small.labels, "l2", dict.fromkeys(problem.observed, 1.0))
    inputs = candidates(5, 2, (1, 16, 16)).float()
    assert torch.allclose(Shared(aim, 5).distances(inputs), InTurn(aim).distances(inputs), rtol=1e-5)


@pytest.mark.parametrize("lanes", [1, 3, 7, 9])
def test_chunks_change_nothing(build, lanes):
    aim = aim_of(build("resnet20", task=Task("multiclass", 10)))
    inputs = candidates(7, 1, (3, 16, 16))
    expected = Shared(aim, 7).distances(inputs)
    assert torch.allclose(Shared(aim, lanes).distances(inputs), expected, rtol=1e-10)


def mirrored_defenses():
    for name in DEFENSES.names():
        card = DEFENSES.get(name)
        if card.mirrored and name not in ("none", "chain"):
            config = card.config.model_validate({"variant": "ggl"} if name == "soteria" else {})
            assert card.unmirrored(config) is None
            yield pytest.param(name, config, id=name)


@pytest.mark.parametrize(("name", "config"), [*mirrored_defenses()])
def test_mirrors_are_applied_row_by_row(name, config):
    small = SmallProblem(know_labels=True, defense=DEFENSES.implementation(name)(config))
    problem = Problem.of(small.attack_task(GglConfig(), adaptive=True), small.env(), unroll=False)
    aim = Aim(problem, problem.known_labels(), "l2", dict.fromkeys(problem.observed, 1.0))
    inputs = candidates(4, 1, (1, 16, 16)).float()
    found = population(aim, 4)
    assert found.formulation == "shared"
    assert torch.allclose(found.distances(inputs), InTurn(aim).distances(inputs), rtol=1e-4, atol=1e-7)


def test_frozen_parameters_are_left_out(build):
    model = build("convnet", task=Task("multiclass", 10), **MODELS["convnet"])
    model.body.conv1.requires_grad_(False)
    aim = aim_of(model)
    assert "body.conv1.weight" not in aim.problem.observed
    inputs = candidates(3, 1, (3, 16, 16))
    assert torch.allclose(Shared(aim, 3).distances(inputs), InTurn(aim).distances(inputs), rtol=1e-8)


def test_a_batch_norm_in_train_mode_is_evaluated_in_turn(build):
    aim = aim_of(build("convnet", task=Task("multiclass", 10), mode="train", **MODELS["convnet"]), n=2)
    for formulation in (Shared, Vectorised):
        with pytest.raises(UnsupportedModelError, match="train mode"):
            formulation(aim, 4)
    assert population(aim, 4).formulation == "reference"


def test_width_is_bounded_by_memory(build, monkeypatch):
    aim = aim_of(build("convnet", task=Task("multiclass", 10), **MODELS["convnet"]))
    numbers = sum(tensor.numel() for tensor in aim.problem.observed.values())
    monkeypatch.setitem(population.__globals__["ROOM"], "cpu", 3 * numbers)
    assert (population(aim, 50).lanes, population(aim, 2).lanes) == (3, 2)
    monkeypatch.setitem(population.__globals__["ROOM"], "cpu", 1)
    assert (population(aim, 50).formulation, population(aim, 50).lanes) == ("reference", 1)


def test_nothing_is_left_on_the_model(build):
    model = build("convnet", task=Task("multiclass", 10), **MODELS["convnet"])
    aim = aim_of(model)
    population(aim, 4).distances(candidates(4, 1, (3, 16, 16)))
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
