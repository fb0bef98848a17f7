from dataclasses import replace
from itertools import product

import pytest
import torch

from attacks.base import Reconstruction
from attacks.cards_gradinversion import GRADINVERSION, GradInversionConfig
from attacks.engine.table import REFERENCE, Choice, shipped
from attacks.gradinversion import GradInversion, _optimizer, _recipe
from attacks.matching import PlainObjective, _Search
from attacks.problem import Problem
from defenses.catalog import ClippingConfig, GaussianConfig
from defenses.clipping import Clipping
from defenses.gaussian import Gaussian
from fl.models import MODELS
from fl.specs import FederationSpec, KnowledgeSpec, Task, ThreatModel
from harness.testing import AttackConformance, SmallEnv, SmallProblem
from harness.testing.small_setting import small_data, small_setting

MULTICLASS = Task("multiclass", 10)
QUICK = GradInversionConfig(iterations=6, warmup=2, restarts=2, group_start=2, group_every=2, jitter=0.1)
STRONG = GradInversionConfig(
    iterations=150,
    warmup=10,
    jitter=0.0,
    boxed=True,
    signed=True,
    cost="cosine",
    matching=1.0,
    batch_norm=1e-3,
    variation="anisotropic",
)


def error(answer, problem):
    assert isinstance(answer, Reconstruction), answer
    return float((answer.images - problem.images).square().mean())


def attack(problem, config, **task):
    (answer,) = GradInversion().solve([problem.attack_task(config, **task)], problem.env())
    return answer


class TestGradInversion(AttackConformance):
    card = GRADINVERSION
    config = QUICK


class TestGradInversionFromTheMean(AttackConformance):
    card = GRADINVERSION
    config = GradInversionConfig(iterations=3, init="mean", labels="refined", jitter=0.0)
    deterministic = True


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_it_recovers_an_image(norm_problem, mode):
    problem = norm_problem(mode=mode, tier="exact", width=4)
    floor = float((problem.public.mean_image - problem.images).square().mean())
    assert error(attack(problem, STRONG), problem) < floor / 10


@pytest.mark.parametrize(("kind", "steps"), [("gradient", 1), ("delta", 1), ("delta", 2)])
def test_weight_deltas_are_matched_too(norm_problem, kind, steps):
    problem = norm_problem(mode="train", tier="inferred", kind=kind, steps=steps, lr=1e-3, width=4)
    floor = float((problem.public.mean_image - problem.images).square().mean())
    assert error(attack(problem, STRONG), problem) < floor / 3


def objective_of(problem, config):
    asked = Problem.of(problem.attack_task(config), SmallEnv(), unroll=False)
    return asked, PlainObjective(asked, _recipe(config))


@pytest.mark.parametrize(
    ("mode", "tier"), [*product(("eval", "train"), ("running", "exact")), ("train", "inferred")]
)
def test_the_objective_is_the_weighted_sum_of_its_terms(norm_problem, mode, tier):
    config = GradInversionConfig(batch_norm=0.3, total_variation=0.01, image_norm=0.02)
    problem = norm_problem(mode=mode, tier=tier, n=2)
    asked, objective = objective_of(problem, config)
    inputs = asked.first_guess("randn", 0).requires_grad_()
    found = objective.evaluate(inputs, problem.labels, None)
    weights = {"matching": 1e-3, "batch_norm": 0.3, "total_variation": 0.01, "image_norm": 0.02}
    assert found.terms.keys() == {*weights, "total"}
    total = sum(weight * float(found.terms[name]) for name, weight in weights.items())
    assert float(found.total.detach()) == pytest.approx(total, rel=1e-6)


def test_the_truth_satisfies_gradients_and_exact_statistics(norm_problem):
    problem = norm_problem(mode="train", tier="inferred", n=3, know_labels=True)
    asked, objective = objective_of(problem, GradInversionConfig())
    found = objective.evaluate(asked.task.observation.image.normalise(problem.images), problem.labels, None)
    assert float(found.terms["matching"]) < 1e-4
    assert float(found.terms["batch_norm"]) < 1e-4


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_gradient_matching_moves_the_images(norm_problem, mode):
    """The released attack of ShadowDef reads its update from a state dict, which has no graph."""
    problem = norm_problem(mode=mode, n=2)
    config = GradInversionConfig(matching=1.0, batch_norm=0, total_variation=0, image_norm=0)
    asked, objective = objective_of(problem, config)
    inputs = asked.first_guess("randn", 0).requires_grad_()
    total = objective.evaluate(inputs, problem.labels, None).total
    (gradient,) = torch.autograd.grad(total, inputs)
    assert (gradient.flatten(1).norm(dim=1) > 1e-3).all()


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_gradient_of_the_objective_is_that_of_differences(norm_problem, mode):
    """Steps are tiny: a ReLU network's gradient jumps where a unit switches."""
    problem = norm_problem(mode=mode, tier="exact", n=2, width=1)
    config = GradInversionConfig(matching=0.1, batch_norm=0.3, total_variation=0.01, image_norm=0.02)
    asked, _ = objective_of(problem, config)
    double = replace(
        asked,
        model=asked.model.double(),
        observed={name: tensor.double() for name, tensor in asked.observed.items()},
    )
    objective = PlainObjective(double, _recipe(config))
    inputs = asked.first_guess("randn", 0).double()
    mean = torch.zeros_like(inputs)

    def total(values):
        return objective.evaluate(values, problem.labels, mean).total

    variable = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(variable), variable)
    stream = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = torch.randn(inputs.shape, generator=stream, dtype=torch.float64)
        ends = [
            float(total((inputs + sign * 1e-8 * direction).requires_grad_()).detach()) for sign in (1, -1)
        ]
        assert (ends[0] - ends[1]) / 2e-8 == pytest.approx(float((gradient * direction).sum()), rel=1e-4)


def spread(config, problem):
    """How far the restarts end from their mean, in the plain loop."""
    asked, recipe = objective_of(problem, config)[0], _recipe(config)
    search = _Search(asked, SmallEnv(), recipe, asked.labelling(recipe.labels))
    images = torch.stack([candidate.inputs for candidate in search.candidates()])
    assert len(images) == config.restarts
    return float((images - images.mean(0)).norm())


def test_the_group_pulls_restarts_together(norm_problem):
    problem = norm_problem(n=2)
    config = GradInversionConfig(iterations=40, warmup=5, restarts=3, group_start=10, group_every=5, jitter=0)
    apart, together = (spread(config.model_copy(update={"group": weight}), problem) for weight in (0, 10.0))
    assert together < apart / 2


def test_a_group_that_starts_late_changes_nothing_before(monkeypatch, norm_problem):
    monkeypatch.setitem(shipped().models["cpu"], "convnet", REFERENCE)
    problem = norm_problem()
    config = GradInversionConfig(iterations=12, warmup=2, restarts=2, group_start=13, jitter=0)
    answers = [
        attack(problem, config.model_copy(update=changes))
        for changes in ({}, {"group": 0.0}, {"group_start": 3})
    ]
    assert torch.equal(answers[0].images, answers[1].images)
    assert not torch.equal(answers[0].images, answers[2].images)


TIERS = [("eval", "exact"), ("eval", "none"), ("train", "inferred"), ("train", "running")]


@pytest.mark.parametrize("where", TIERS)
@pytest.mark.parametrize("labels", ["inferred", "joint", "refined"])
@pytest.mark.parametrize("allowed", [None, 11])
def test_lanes_do_what_the_plain_loop_does(monkeypatch, norm_problem, where, labels, allowed):
    mode, tier = where
    problem = norm_problem(mode=mode, tier=tier, n=2)
    config = GradInversionConfig(
        iterations=8, warmup=2, restarts=3, group_start=2, group_every=3, labels=labels, lr=0.02, jitter=0.5
    )
    task = problem.attack_task(config, max_evaluations=allowed)
    both = []
    for choice in (Choice("layers", 16), REFERENCE):
        monkeypatch.setitem(shipped().models["cpu"], "convnet", choice)
        env = SmallEnv()
        (answer,) = GradInversion().solve([task], env)
        both.append((answer, env.snapshots["small"]))
    (fast, snapshots), (plain, others) = both
    assert (fast.formulation, plain.formulation) == ("layers", "reference")
    assert fast.gradient_evaluations == plain.gradient_evaluations
    torch.testing.assert_close(fast.images, plain.images, atol=1e-4, rtol=0)
    assert fast.objective == pytest.approx(plain.objective, rel=1e-3)
    for one, other in zip(snapshots, others, strict=True):
        assert (one.iteration, one.restart) == (other.iteration, other.restart)
        assert one.objective == pytest.approx(other.objective, rel=1e-3)


def mixed_tasks(norm_problem):
    configs = [
        QUICK,
        QUICK.model_copy(update={"batch_norm": 1.0, "lr": 0.05}),
        QUICK.model_copy(update={"restarts": 1}),
        QUICK.model_copy(update={"restarts": 3, "iterations": 4}),
    ]
    return [
        norm_problem(seed=seed, mode="train", tier="inferred").attack_task(
            config, task_id=f"{seed}-{index}", seed=index
        )
        for seed, (index, config) in product(range(2), enumerate(configs))
    ]


def test_company_changes_no_bit(monkeypatch, norm_problem):
    monkeypatch.setitem(shipped().models["cpu"], "convnet", Choice("layers", 16))
    tasks = mixed_tasks(norm_problem)
    alone = {task.task_id: next(GradInversion().solve([task], SmallEnv())) for task in tasks}
    for order in (tasks, tasks[::-1], tasks[3:] + tasks[:3]):
        for answer in GradInversion().solve(order, SmallEnv()):
            assert torch.equal(answer.images, alone[answer.task_id].images), answer.task_id
            assert answer.objective == alone[answer.task_id].objective


def test_more_restarts_than_lanes_are_left_to_the_plain_loop(monkeypatch, norm_problem):
    monkeypatch.setitem(shipped().models["cpu"], "convnet", Choice("layers", 1))
    assert attack(norm_problem(), QUICK).formulation == "reference"
    assert attack(norm_problem(), QUICK.model_copy(update={"restarts": 1})).formulation == "layers"


class Stopping(SmallEnv):
    def stopping(self, task_id):
        return task_id == "0-0"


def test_a_stopped_group_leaves_all_its_lanes(monkeypatch, norm_problem):
    monkeypatch.setitem(shipped().models["cpu"], "convnet", Choice("layers", 16))
    answers = {a.task_id: a for a in GradInversion().solve(mixed_tasks(norm_problem), Stopping())}
    assert len(answers) == 8
    assert answers.pop("0-0").error == "stopped"
    assert all(isinstance(answer, Reconstruction) for answer in answers.values())


def test_granted_labels_can_be_refined(norm_problem):
    problem = norm_problem(n=2, know_labels=True)
    fixed, refined = (
        attack(problem, QUICK.model_copy(update={"labels": labels})) for labels in ("joint", "refined")
    )
    assert fixed.labels is None
    assert refined.labels.tolist() == problem.labels.tolist()


def test_noise_and_clipping_are_attacked_as_by_the_others(norm_problem):
    clear = norm_problem(width=4)
    noisy = norm_problem(width=4, defense=Gaussian(GaussianConfig(sigma=0.3)))
    assert error(attack(clear, STRONG), clear) < error(attack(noisy, STRONG), noisy) / 10
    clipped = norm_problem(width=4, defense=Clipping(ClippingConfig(bound=0.1)))
    lengths = STRONG.model_copy(update={"cost": "norm_per_tensor", "matching": 0.1, "signed": False})
    static, adaptive = (
        error(attack(clipped, lengths, adaptive=adaptive), clipped) for adaptive in (False, True)
    )
    assert adaptive < static / 2


def test_a_simulated_client_is_attacked_with_statistics_too(norm_problem, dimming):
    problem = norm_problem(mode="train", tier="exact", defense=dimming)
    answer = attack(problem, QUICK, adaptive=True, mirrored=False)
    assert answer.formulation == "reference"
    assert answer.objective["batch_norm"] > 0


def test_the_step_warms_up_and_falls_along_a_cosine():
    config = GradInversionConfig(lr=0.4, warmup=4, iterations=12)
    problem = Problem.of(SmallProblem().attack_task(config), SmallEnv(), unroll=False)
    optimizer = _optimizer(config, problem)
    rates = [optimizer.rate(iteration, 12) for iteration in range(12)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[8] == pytest.approx(0.2)
    assert rates[11] < 0.02
    constant = _optimizer(config.model_copy(update={"schedule": "constant"}), problem)
    assert constant.rate(11, 12) == 0.4


def test_jitter_is_drawn_per_restart_from_the_target_s_own_stream(norm_problem):
    problem = norm_problem()
    still = GradInversionConfig(iterations=1, warmup=0, schedule="constant", jitter=0.0, lr=0.05)
    images = [
        attack(problem, still.model_copy(update={"jitter": jitter}), seed=seed).images
        for jitter, seed in ((0.0, 1), (3.0, 1), (3.0, 1))
    ]
    assert torch.equal(images[1], images[2])
    moved = (images[1] - images[0])[(images[0] > 0.2) & (images[0] < 0.8)]
    assert float(moved.std()) == pytest.approx(0.05 * 3 * 0.25, rel=0.25)


def on_convnet(*, batch_norm, **changes):
    card = MODELS.get("convnet")
    return small_setting(model=card.traits(card.config(batch_norm=batch_norm), small_data()), **changes)


@pytest.mark.parametrize(
    ("knowledge", "federation", "config", "reason"),
    [
        ({"batch_norm": "inferred"}, {"batch_norm": "train"}, {}, None),
        ({"batch_norm": "inferred"}, {"batch_norm": "eval"}, {}, "federation.batch_norm: train"),
        ({"batch_norm": "inferred"}, {"batch_norm": "eval"}, {"batch_norm": 0}, None),
        ({"batch_norm": "proxy"}, {}, {}, None),
        ({"batch_norm": "proxy", "public_data": False}, {}, {}, "proxy needs public images"),
        ({"batch_norm": "none"}, {}, {}, None),
        ({"public_data": False}, {}, {"init": "mean"}, "mean public image"),
        ({"local_hyperparameters": False}, {"algorithm": "fedavg"}, {}, "lengths"),
        ({"local_hyperparameters": False}, {"algorithm": "fedavg"}, {"cost": "cosine"}, "counted"),
        (
            {"local_hyperparameters": False},
            {"algorithm": "fedavg"},
            {"cost": "cosine", "labels": "joint"},
            None,
        ),
    ],
)
def test_it_says_where_it_does_not_apply(knowledge, federation, config, reason):
    where = on_convnet(
        batch_norm=True,
        federation=FederationSpec(**federation),
        threat_model=ThreatModel(knowledge=KnowledgeSpec(**knowledge)),
    )
    found = GRADINVERSION.compatible(GradInversionConfig(**config), where)
    assert (found is None) if reason is None else reason in found


def test_without_batch_norm_every_tier_applies():
    inferred = ThreatModel(knowledge=KnowledgeSpec(batch_norm="inferred"))
    where = on_convnet(batch_norm=False, threat_model=inferred)
    assert GRADINVERSION.compatible(GradInversionConfig(), where) is None


@pytest.mark.parametrize(
    "wrong", [{"init_jitter": 0.1}, {"init": "mean", "restarts": 2, "jitter": 0.0}, {"matching": 0.0}]
)
def test_options_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(ValueError, match=r"init|jitter|matching"):
        GradInversionConfig(**wrong)
