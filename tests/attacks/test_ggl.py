from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from attacks.cards_generative import PRIOR
from attacks.cards_ggl import GGL, GglConfig
from attacks.ggl import Ggl
from attacks.latent.objective import LatentObjective, tensor_weights
from attacks.problem import Problem
from defenses.catalog import GaussianConfig
from defenses.gaussian import Gaussian
from fl.generators.config import GeneratorConfig
from fl.models import materialise
from fl.seeds import Streams
from fl.specs import FederationSpec, KnowledgeSpec, ThreatModel
from harness.testing import AttackConformance, SmallProblem
from harness.testing.small_generators import (
    generator_artifact,
    small_generator,
    solve_through_generator,
)
from harness.testing.small_setting import small_data, small_setting

QUICK = GglConfig(prior=GeneratorConfig(latent=6, width=2), evaluations=24, population=8, restarts=2)
solve = partial(solve_through_generator, Ggl)


class TestConformance(AttackConformance):
    card = GGL
    config = QUICK

    def artifacts(self, problem):
        return {PRIOR: generator_artifact(small_generator(problem.channels))}


class TestConformanceOfTurbo(TestConformance):
    config = QUICK.model_copy(update={"optimizer": "turbo"})


class TestConformanceOfAdam(TestConformance):
    config = QUICK.model_copy(update={"optimizer": "adam", "evaluations": 5})


class TestConformanceOfRandomSearch(TestConformance):
    config = QUICK.model_copy(update={"optimizer": "random"})


def distance_by_hand(small, images, cost, layer_weights):
    """Of one trial batch, with the reference's formula written out."""
    model = materialise(small.sent)
    loss = F.cross_entropy(model(small.image.normalise(images)), small.labels)
    gradients = torch.autograd.grad(loss, model.parameters())
    pairs = list(zip(gradients, (small.update.tensors[n] for n, _ in model.named_parameters()), strict=True))
    weights = [2.0 ** -(i // 3) if layer_weights == "released" else 1.0 for i in range(len(pairs))]
    if cost == "cosine":
        left, right = (
            torch.cat([w**0.5 * t.flatten() for w, t in zip(weights, tensors, strict=True)])
            for tensors in zip(*pairs, strict=True)
        )
        return float(1 - F.cosine_similarity(left, right, dim=0))
    power = {"l2": 2, "l1": 1}[cost]
    sums = [w * float((g - y).abs().pow(power).sum()) for w, (g, y) in zip(weights, pairs, strict=True)]
    return sum(sums) / len(sums)


@pytest.mark.parametrize("cost", ["l2", "l1", "cosine"])
@pytest.mark.parametrize("layer_weights", ["none", "released"])
@pytest.mark.parametrize("tanh", [False, True])
def test_the_objective_is_that_of_the_paper(cost, layer_weights, tanh):
    small, generator = SmallProblem(n=2, know_labels=True), small_generator(1)
    changes = {"cost": cost, "layer_weights": layer_weights, "tanh": tanh, "kl": 0.3, "latent_norm": 0.01}
    config = QUICK.model_copy(update=changes)
    problem = Problem.of(small.attack_task(config), small.env(), unroll=False)
    objective = LatentObjective(problem, generator, small.labels, config)
    points = torch.randn(3, objective.dimension, generator=Streams(3).torch("points"))
    found = objective.evaluate(points)
    for i, point in enumerate(points):
        z = point.view(2, 6)
        images = generator(z.tanh() if tanh else z)
        assert torch.allclose(small.image.denormalise(found.inputs[i]), images, atol=1e-6)
        matching = distance_by_hand(small, images, cost, layer_weights)
        variances = [float(v.var(correction=0)) for v in z]
        kl = sum(
            -(1 + torch.tensor(s).log().item() - float(v.mean()) ** 2 - s) / 2
            for v, s in zip(z, variances, strict=True)
        )
        norm = sum((float(v @ v) - 6) ** 2 for v in z)
        assert float(found.terms["matching"][i]) == pytest.approx(matching, rel=1e-4)
        assert float(found.terms["kl"][i]) == pytest.approx(kl / 2, rel=1e-4)
        assert float(found.terms["latent_norm"][i]) == pytest.approx(norm / 2, rel=1e-4)
        total = matching + 0.3 * kl / 2 + 0.01 * norm / 2
        assert float(found.terms["total"][i]) == pytest.approx(total, rel=1e-4)


def test_the_scale_free_weight_is_in_units_of_the_observed_gradient():
    small = SmallProblem(know_labels=True)
    config = QUICK.model_copy(update={"kl": 0.3, "kl_scale": "gradient"})
    objective = LatentObjective(
        Problem.of(small.attack_task(config), small.env(), unroll=False),
        small_generator(1),
        small.labels,
        config,
    )
    terms = objective.evaluate(torch.ones(1, 6) * torch.tensor([1.0, 2, 3, 4, 5, 6])).terms
    squares = sum(float(tensor.square().sum()) for tensor in small.update.tensors.values())
    unit = squares / len(small.update.tensors)
    assert float(terms["total"] - terms["matching"]) == pytest.approx(
        0.3 * unit * float(terms["kl"]), rel=1e-4
    )
    assert objective.observed_norm == pytest.approx(squares**0.5, rel=1e-5)


def test_weights_of_tensors_fall_by_threes_up_to_the_sixtieth():
    names = [str(i) for i in range(62)]
    released = tensor_weights(names, QUICK.model_copy(update={"layer_weights": "released"}))
    shares = [released[name] * 62 for name in names]
    assert shares == pytest.approx([2.0 ** -(i // 3) for i in range(60)] + [1.0, 1.0])
    cosine = tensor_weights(names, QUICK.model_copy(update={"cost": "cosine"}))
    assert set(cosine.values()) == {1.0}


@pytest.mark.parametrize("conditional", [False, True])
def test_adam_is_told_the_slope_of_what_others_are_told_the_value_of(conditional):
    small = SmallProblem(n=2, know_labels=True)
    config = QUICK.model_copy(update={"kl": 0.3, "latent_norm": 0.01, "tanh": True})
    problem = Problem.of(small.attack_task(config), small.env(), unroll=False)
    problem = replace(
        problem,
        model=materialise(small.sent).double(),
        observed={name: tensor.double() for name, tensor in problem.observed.items()},
    )
    generator = small_generator(1, classes=10 if conditional else 0).double()
    objective = LatentObjective(problem, generator, small.labels, config)
    point = torch.randn(1, 12, generator=Streams(3).torch("points"), dtype=torch.float64)
    found = objective.differentiate(point)
    assert float(found.terms["total"]) == pytest.approx(
        float(objective.evaluate(point).terms["total"]), rel=1e-9
    )
    steps = 1e-6 * torch.eye(12, dtype=torch.float64)
    up, down = (objective.evaluate(point + sign * steps).terms["total"] for sign in (1, -1))
    assert torch.allclose(found.slopes[0], (up - down) / 2e-6, rtol=1e-4, atol=1e-8)


def test_a_conditional_generator_draws_by_the_inferred_label():
    small, generator = SmallProblem(), small_generator(1, classes=10)
    config = QUICK.model_copy(update={"optimizer": "random", "restarts": 1})
    answer, _ = solve(small, config, generator)
    assert answer.labels.tolist() == small.labels.tolist()
    stream = small.attack_task(config).streams.torch("first_latents", restart=0)
    drawn = torch.cat([torch.randn(8, 6, generator=stream) for _ in range(3)])
    images = generator(drawn, small.labels.expand(24))
    assert (images - answer.images).abs().flatten(1).amax(1).min() < 1e-6
    others = generator(drawn, (small.labels + 1).remainder(10).expand(24))
    assert (others - answer.images).abs().flatten(1).amax(1).min() > 1e-3


@pytest.mark.parametrize("optimizer", ["cma", "turbo", "adam", "random"])
@pytest.mark.parametrize(("limit", "spent"), [(None, 2 * 21), (1000, 2 * 21), (31, 31), (3, 3), (1, 1)])
def test_the_budget_is_kept_exactly(optimizer, limit, spent):
    config = QUICK.model_copy(update={"optimizer": optimizer, "evaluations": 21})
    answer, snapshots = solve(SmallProblem(), config, max_evaluations=limit)
    assert answer.gradient_evaluations == spent
    assert snapshots[-1].iteration == spent - 1
    assert {snapshot.restart for snapshot in snapshots} == ({0} if spent == 1 else {0, 1})


@pytest.mark.parametrize("optimizer", ["cma", "turbo", "adam", "random"])
def test_the_lowest_objective_of_all_restarts_is_kept(optimizer):
    config = QUICK.model_copy(update={"optimizer": optimizer, "restarts": 3})
    answer, snapshots = solve(SmallProblem(), config)
    assert {*answer.objective} == {"matching", "kl", "latent_norm", "observed_norm", "total"}
    assert answer.objective["total"] == min(snapshot.objective["total"] for snapshot in snapshots)
    assert answer.objective["total"] == snapshots[-1].best
    best = next(s for s in snapshots if s.objective["total"] == answer.objective["total"])
    assert torch.equal(best.images, answer.images)
    for snapshot in snapshots:
        terms = snapshot.objective
        assert terms["total"] == pytest.approx(terms["matching"] + 0.1 * terms["kl"], rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "cma", "evaluations": 600},
        {"optimizer": "adam", "evaluations": 250, "schedule": "cosine", "cost": "cosine"},
    ],
    ids=["cma", "adam"],
)
def test_an_image_of_the_generator_is_found(changes):
    generator = small_generator(1)
    small = SmallProblem()
    small.__dict__["images"] = generator(torch.randn(1, 6, generator=Streams(5).torch("truth")))
    config = QUICK.model_copy(update={**changes, "kl": 0.0, "restarts": 4})
    answer, _ = solve(small, config, generator)
    assert float((answer.images - small.images).square().mean()) < 1e-3


def test_a_simulated_client_is_asked_one_image_at_a_time():
    small = SmallProblem(defense=Gaussian(GaussianConfig(sigma=1e-3)))
    answer, _ = solve(small, QUICK, adaptive=True, mirrored=False)
    assert (answer.formulation, answer.lane_width) == ("reference", 1)
    mirrored, _ = solve(small, QUICK, adaptive=True)
    assert (mirrored.formulation, mirrored.lane_width) == ("shared", 8)


def test_a_weight_delta_counts_as_one_step_of_its_length():
    small = SmallProblem(n=2, kind="delta", steps=1, know_labels=True)
    alike = SmallProblem(n=2, know_labels=True)
    delta, _ = solve(small, QUICK)
    gradient, _ = solve(alike, QUICK)
    assert delta.objective["matching"] == pytest.approx(gradient.objective["matching"], rel=1e-2)


def test_global_generators_are_left_alone():
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    for optimizer in ("cma", "turbo", "adam", "random"):
        solve(SmallProblem(), QUICK.model_copy(update={"optimizer": optimizer}))
    assert (np.random.get_state()[1] == numpy_state).all()
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_what_a_generator_cannot_do_is_a_failure():
    small = SmallProblem()
    missing = next(Ggl().solve([small.attack_task(QUICK)], small.env()))
    assert "expected a generator" in missing.error
    for generator, reason in (
        (small_generator(3), "3 channels"),
        (small_generator(1, classes=7), "7 classes"),
    ):
        task = small.attack_task(QUICK, artifacts={PRIOR: generator_artifact(generator)})
        assert reason in next(Ggl().solve([task], small.env())).error


def test_it_says_where_it_cannot_work():
    blind = ThreatModel(knowledge=KnowledgeSpec(public_data=False))
    assert GGL.compatible(QUICK, small_setting()) is None
    assert "knowledge.public_data" in GGL.compatible(QUICK, small_setting(threat_model=blind))
    assert "public images" in GGL.compatible(QUICK, small_setting(small_data(public=2)))
    lengths = ThreatModel(knowledge=KnowledgeSpec(local_hyperparameters=False, labels="known"))
    delta = small_setting(federation=FederationSpec(algorithm="fedavg"), threat_model=lengths)
    assert "lengths" in GGL.compatible(QUICK, delta)
    assert GGL.compatible(QUICK.model_copy(update={"cost": "cosine"}), delta) is None
    traits = replace(small_setting().model, head_bias=False, non_negative_features=False)
    assert "labels are read" in GGL.compatible(QUICK, small_setting(model=traits))
    conditional = GeneratorConfig(conditional=True)
    assert GGL.compatible(QUICK.model_copy(update={"prior": conditional}), small_setting()) is None


def test_budgets_are_those_of_the_paper_unless_given():
    budgets = {
        name: (GglConfig(optimizer=name).budget, GglConfig(optimizer=name).side_by_side)
        for name in ("cma", "turbo", "adam", "random")
    }
    assert budgets == {"cma": (40_000, 50), "turbo": (1000, 10), "adam": (2500, 1), "random": (40_000, 50)}
    assert GGL.evaluations(QUICK) == 48
