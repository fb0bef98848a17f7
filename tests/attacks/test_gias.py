from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.func import functional_call

from attacks.cards_generative import GIAS, PRIOR, GiasConfig
from attacks.engine.table import at_most
from attacks.generative import Hunt, PlainEvaluator
from attacks.gias import Gias, _plan
from attacks.parametrisations import Latents
from attacks.problem import Problem
from fl.generators.architecture import Generator, initialise
from fl.generators.config import GeneratorConfig
from fl.generators.layout import FACES, Layout
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

QUICK = GiasConfig(
    prior=GeneratorConfig(latent=6, width=2),
    restarts=2,
    latent_iterations=6,
    parameter_iterations=5,
    latent_lr=0.1,
)
solve = partial(solve_through_generator, Gias)


class TestConformance(AttackConformance):
    card = GIAS
    config = QUICK

    def artifacts(self, problem):
        return {PRIOR: generator_artifact(small_generator(problem.channels))}


class TestConformanceOfThePlainLoop(TestConformance):
    def _solve(self, tasks, env=None):
        with at_most(0):
            return super()._solve(tasks, env)


@pytest.mark.parametrize("restarts", [1, 2])
@pytest.mark.parametrize("reference", [True, False])
def test_it_follows_an_independent_loop(cosine_and_variation, restarts, reference):
    """Adam on z, its step down tenfold in stages, then Adam on copies of G; the best cost at every turn."""
    config = GiasConfig(
        prior=QUICK.prior,
        restarts=restarts,
        latent_iterations=16,
        latent_lr=0.1,
        parameter_iterations=8,
        parameter_lr=0.01,
        total_variation=1e-2,
        latent_norm=1e-2,
    )
    small, generator = SmallProblem(n=2, know_labels=True), small_generator(1)
    answer, _ = solve(small, config, generator, reference=reference)
    task = small.attack_task(config)

    def descend(variables, draw, prior, iterations, lr):
        optimizer = torch.optim.Adam(variables, lr=lr)
        stages = [int(iterations * share) for share in (3 / 8, 5 / 8, 7 / 8)]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=stages, gamma=0.1)
        best = (float("inf"), None, None)
        for iteration in range(iterations + 1):
            images = draw()
            matching, variation = cosine_and_variation(small, images)
            if matching < best[0]:
                best = (float(matching.detach()), images.detach(), variables[0].detach().clone())
            if iteration == iterations:
                return best
            total = matching + variation + prior()
            for variable, slope in zip(variables, torch.autograd.grad(total, variables), strict=True):
                variable.grad = slope
            optimizer.step()
            schedule.step()

    runs = []
    for restart in range(restarts):
        z = torch.randn(2, 6, generator=task.streams.torch("first_latents", restart=restart)).requires_grad_()
        norm = lambda z=z: 1e-2 * z.norm(dim=1).mean()  # noqa: E731
        runs.append(descend([z], lambda z=z: generator(z), norm, 16, 0.1))
    first = min(runs, key=lambda run: run[0])
    copies = [[p.clone().requires_grad_() for p in generator.synthesis.parameters()] for _ in range(2)]
    names = [name for name, _ in generator.synthesis.named_parameters()]

    def draw():
        each = [
            functional_call(generator.synthesis, dict(zip(names, copy, strict=True)), (style[None],))
            for copy, style in zip(copies, first[2], strict=True)
        ]
        return torch.cat(each)

    second = descend([*copies[0], *copies[1]], draw, lambda: 0.0, 8, 0.01)
    expected = min(first, second, key=lambda run: run[0])
    assert second[0] < first[0]
    assert answer.objective["matching"] == pytest.approx(expected[0], rel=1e-3, abs=1e-6)
    assert float((answer.images - expected[1]).abs().max()) < 2e-3
    assert answer.gradient_evaluations == restarts * 17 + 9


def test_the_second_phase_never_ends_worse_than_the_first():
    config = QUICK.model_copy(update={"parameter_lr": 0.5, "latent_iterations": 20})
    small = SmallProblem()
    answer, snapshots = solve(small, config)
    latent = [s.objective["matching"] for s in snapshots if s.restart < 2]
    weights = [s.objective["matching"] for s in snapshots if s.restart == 2]
    assert weights[0] == pytest.approx(min(latent), abs=1e-6)
    assert max(weights) > weights[0], "expected steps this long to do harm"
    assert answer.objective["matching"] == min(latent + weights)


def test_restarts_are_chosen_by_their_own_cost():
    small = SmallProblem()
    config = QUICK.model_copy(update={"parameter_iterations": 0, "restarts": 4})
    answer, snapshots = solve(small, config)
    by_restart = [
        min(s.objective["matching"] for s in snapshots if s.restart == restart) for restart in range(4)
    ]
    assert len(set(by_restart)) == 4
    assert answer.objective["matching"] == min(by_restart)


def test_the_latent_search_stays_in_the_range_of_the_generator():
    """Images of a generator of one constant colour each stay that way; the second phase leaves them."""
    generator = small_generator(1)
    with torch.no_grad():
        generator.synthesis.to_images.weight.zero_()
        generator.synthesis.to_images.bias.fill_(0.3)
    constant = (torch.tensor(0.3).tanh() + 1) / 2
    small = SmallProblem()
    within = QUICK.model_copy(update={"parameter_iterations": 0})
    answer, _ = solve(small, within, generator)
    assert torch.allclose(answer.images, constant.expand_as(answer.images), atol=1e-6)
    beyond, _ = solve(small, QUICK.model_copy(update={"parameter_lr": 0.05}), generator)
    assert beyond.images.std() > 1e-3
    assert beyond.objective["matching"] < answer.objective["matching"]


@pytest.mark.parametrize("know_labels", [True, False])
def test_a_generator_that_draws_by_class_draws_by_the_labels_of_the_attacker(know_labels):
    """Its latent vector is cut off, so that the label alone decides."""
    generator = Generator(Layout("upsampling", 1, 16, 6, 2, classes=10))
    initialise(generator, Streams(0).torch("generator_weights"))
    with torch.no_grad():
        generator.blocks[0].linear.weight[:, :6] = 0
    generator.eval().requires_grad_(False)
    small = SmallProblem(n=3, know_labels=know_labels)
    answer, _ = solve(small, QUICK.model_copy(update={"parameter_iterations": 0}), generator)
    labels = small.labels if know_labels else answer.labels
    assert len(labels.unique()) > 1
    assert torch.allclose(answer.images, generator(torch.zeros(3, 6), labels), atol=1e-6)
    bent, _ = solve(small, QUICK.model_copy(update={"parameter_lr": 1e-12}), generator)
    assert torch.allclose(bent.images, answer.images, atol=1e-5)


def test_an_image_of_the_generator_is_found():
    generator = small_generator(1, width=4)
    z = torch.randn(1, 6, generator=Streams(5).torch("truth"))
    small = SmallProblem(know_labels=True)
    small.__dict__["images"] = generator(z)
    config = GiasConfig(
        prior=QUICK.prior,
        restarts=4,
        latent_iterations=250,
        latent_lr=0.1,
        parameter_iterations=0,
        total_variation=0,
    )
    answer, _ = solve(small, config, generator)
    assert float((answer.images - small.images).square().mean()) < 1e-3


def test_the_objective_has_a_slope_in_the_latents():
    """d cost / d z by finite differences in double precision, through target model and generator."""
    small, generator = SmallProblem(know_labels=True), small_generator(1).double()
    task = small.attack_task(QUICK)
    model = materialise(small.sent).double()
    problem = replace(
        Problem.of(task, small.env(), unroll=False),
        model=model,
        observed={name: tensor.double() for name, tensor in small.update.tensors.items()},
    )
    search = Hunt(problem, _plan(QUICK), generator, small.env())
    evaluator = PlainEvaluator()
    evaluator.load([search])
    way = Latents(generator, 1)
    z = way.rows(torch.randn(1, 1, 6, generator=Streams(1).torch("z")).double())

    def cost(z):
        return float(evaluator.evaluate(small.image.normalise(way.draw(z).images)).terms["matching"])

    drawn = way.draw(z)
    slopes = evaluator.evaluate(small.image.normalise(drawn.images)).slopes / 0.25  # the deviation
    pulled = drawn.pull(slopes)
    for entry in range(6):
        moved = torch.zeros_like(z)
        moved[:, entry] = 1e-6
        difference = (cost(z + moved) - cost(z - moved)) / 2e-6
        assert float(pulled[0, entry]) == pytest.approx(difference, rel=1e-3, abs=1e-8)


def test_a_task_without_its_generator_is_a_failure():
    small = SmallProblem()
    missing = next(Gias().solve([small.attack_task(QUICK)], small.env()))
    assert "expected a generator" in missing.error
    colour = small.attack_task(QUICK, artifacts={PRIOR: generator_artifact(small_generator(3))})
    assert "3 channels" in next(Gias().solve([colour], small.env())).error


def test_what_a_defense_put_in_is_taken_out_of_the_answer():
    small = SmallProblem(know_labels=True)
    seen = []

    def unperturb(images, labels):
        seen.append((images.shape, labels.tolist()))
        return images - 0.75

    plain, _ = solve(small, QUICK)
    artifacts = {PRIOR: generator_artifact(small_generator(1))}
    task = replace(small.attack_task(QUICK, artifacts=artifacts), unperturb=unperturb, adaptive=True)
    (answer,) = Gias().solve([task], small.env())
    assert seen == [(plain.images.shape, small.labels.tolist())]
    assert torch.allclose(answer.images, (plain.images - 0.75).clamp(0, 1), atol=1e-6)
    assert answer.formulation != "reference"


def test_it_says_where_it_cannot_work():
    blind = ThreatModel(knowledge=KnowledgeSpec(public_data=False))
    assert GIAS.compatible(QUICK, small_setting()) is None
    assert "knowledge.public_data" in GIAS.compatible(QUICK, small_setting(threat_model=blind))
    faces = GiasConfig(prior=GeneratorConfig(checkpoint=FACES))
    portraits = small_data(channels=3, size=64, public=0)
    assert GIAS.compatible(faces, small_setting(portraits, threat_model=blind)) is None
    assert "3 channels" in GIAS.compatible(faces, small_setting())
    assert "public images" in GIAS.compatible(QUICK, small_setting(small_data(public=2)))
    lengths = ThreatModel(knowledge=KnowledgeSpec(local_hyperparameters=False, labels="known"))
    delta = small_setting(federation=FederationSpec(algorithm="fedavg"), threat_model=lengths)
    assert "lengths" in GIAS.compatible(QUICK.model_copy(update={"cost": "l2"}), delta)
    assert GIAS.compatible(QUICK, delta) is None
