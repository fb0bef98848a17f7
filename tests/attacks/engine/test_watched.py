"""What batch norms take in, told by formulations over lanes, against the plain loop's hooks and autograd."""

from itertools import product

import pytest
import torch
from torch import nn

from attacks.cards_gradinversion import GradInversionConfig
from attacks.engine.formulations import WATCHED, Watching
from attacks.engine.graphs import UnsupportedModelError
from attacks.engine.objective import LaneObjective, ObjectiveSpec, Target
from attacks.engine.solver import formulated
from attacks.engine.table import Choice, EngineTable, using
from attacks.gradinversion import GradInversion, _recipe
from attacks.matching import answer
from attacks.objectives import COSTS
from attacks.regularisers import moments_distance
from fl.batch_norm import Moments, observed_moments
from fl.losses import task_loss
from fl.specs import Task
from harness.testing.problems import SmallEnv

MULTICLASS = Task("multiclass", 7)
WEIGHT = 0.7


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("formulation", WATCHED)
@pytest.mark.parametrize("size", [("cosine", 1, 1), ("norm_per_tensor", 2, 2)])
@pytest.mark.parametrize("case", [("convnet", {"width": 4}), ("resnet20", {}), ("mcnn", {})])
def test_the_objective_and_its_gradient_are_autograds(build, case, size, formulation):
    (name, config), (cost, n, lanes) = case, size
    model = build(name, **config)
    names = tuple(name for name, _ in model.named_parameters())
    norms = [name for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)][::2]
    statistics = {
        norm: Moments(*random(2, model.get_submodule(norm).num_features, seed=i).unbind())
        for i, norm in enumerate(norms)
    }
    spec = ObjectiveSpec(
        MULTICLASS, n, (3, 16, 16), names, names, cost, None, False, False, False, watched=tuple(norms)
    )
    computed = WATCHED[formulation](model, lanes)
    assert isinstance(computed, Watching)
    objective = LaneObjective(spec, computed, lanes, next(model.parameters()).detach())
    observed = {name: 0.1 * random(*p.shape, seed=i) for i, (name, p) in enumerate(model.named_parameters())}
    labels = random(n, 7).softmax(1)
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    target = Target(tensors, observed, labels, 0.0, 1.0, None, batch_norm=WEIGHT, statistics=statistics)
    objective.load(lanes - 1, target)
    for seed in (1, 2):
        values = torch.zeros(lanes, spec.variables, dtype=torch.float64)
        values[-1, : spec.pixels] = random(spec.pixels, seed=seed)
        found = objective.evaluate(values)
        inputs = values[-1, : spec.pixels].view(n, 3, 16, 16).clone().requires_grad_()
        with observed_moments(model) as moments:
            loss = task_loss(MULTICLASS, model(inputs), labels)
        gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        total = COSTS[cost](dict(zip(names, gradients, strict=True)), observed)
        total = total + WEIGHT * moments_distance(moments, statistics)
        (expected,) = torch.autograd.grad(total, inputs)
        torch.testing.assert_close(found.total[-1], total.detach(), rtol=1e-9, atol=0)
        gradient = found.gradients[-1, : spec.pixels].view_as(expected)
        assert (gradient - expected).norm() < 1e-9 * expected.norm()


def test_a_formulation_that_cannot_tell_is_refused(build):
    model = build("resnet20")
    names = tuple(name for name, _ in model.named_parameters())
    spec = ObjectiveSpec(
        MULTICLASS, 1, (3, 16, 16), names, names, "l2", None, False, False, False, watched=("norm",)
    )
    with pytest.raises(UnsupportedModelError, match="vmap"):
        formulated(spec, model, Choice("vmap", 16))


TABLE = EngineTable({"cpu": {"convnet": Choice("tangent", 1)}}).with_choice(
    "convnet", "cpu", Choice("tangent", 1), portable=Choice("layers", 16)
)
QUICK = GradInversionConfig(iterations=3, warmup=1, group_start=1, group_every=2, jitter=0.1)


def answers(tasks):
    with using(TABLE):
        return {answer.task_id: answer for answer in GradInversion().solve(tasks, SmallEnv())}


def test_lanes_in_turn_are_as_many_as_restarts_and_train_mode_goes_to_what_stands_in(norm_problem):
    """Restarts, statistics and modes mixed: a row does not depend on its companions."""
    modes = {"eval": ("tangent", 1), "train": ("layers", 16)}
    tasks = {
        f"{mode}-{restarts}-{weight}": norm_problem(mode=mode, tier="exact", width=4).attack_task(
            QUICK.model_copy(update={"restarts": restarts, "batch_norm": weight}),
            task_id=f"{mode}-{restarts}-{weight}",
        )
        for mode, restarts, weight in product(modes, (1, 3), (0.0, 0.1))
    }
    together = answers(tasks.values())
    for name, task in tasks.items():
        mode, restarts, _ = name.split("-")
        one, other = together[name], answers([task])[name]
        formulation, lanes = modes[mode]
        assert (one.formulation, one.lane_width) == (formulation, max(lanes, int(restarts)))
        assert torch.equal(one.images, other.images)
        assert one.objective == other.objective
        loop = answer(task, SmallEnv(), _recipe(task.config))
        assert one.gradient_evaluations == loop.gradient_evaluations
        torch.testing.assert_close(one.images, loop.images, rtol=0, atol=2e-3)
