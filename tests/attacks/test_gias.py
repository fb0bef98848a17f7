import contextlib
from dataclasses import replace

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from attacks.cards_generative import GIAS, PRIOR, GiasConfig
from attacks.engine.table import Choice, EngineTable, at_most, using
from attacks.generative import Hunt, PlainEvaluator
from attacks.generative_plan import Phase, Plan
from attacks.gias import Gias, _plan
from attacks.parametrisations import Latents, Weights
from attacks.problem import Problem
from defenses.catalog import GaussianConfig, PruningConfig
from defenses.gaussian import Gaussian
from defenses.pruning import Pruning
from fl.cards import DataInfo, ModelTraits, Setting
from fl.generators.architecture import Generator, initialise
from fl.generators.config import GeneratorConfig
from fl.generators.layout import FACES, Layout
from fl.models import materialise
from fl.seeds import Streams
from fl.specs import FederationSpec, KnowledgeSpec, Task, ThreatModel
from harness.testing import AttackConformance, SmallProblem
from harness.testing.small_generators import generator_artifact, small_generator

QUICK = GiasConfig(
    prior=GeneratorConfig(latent=6, width=2),
    restarts=2,
    latent_iterations=6,
    parameter_iterations=5,
    latent_lr=0.1,
)


def solve(small, config, generator=None, *, reference=False, **changes):
    env = small.env()
    artifacts = {PRIOR: generator_artifact(generator or small_generator(small.channels))}
    task = small.attack_task(config, artifacts=artifacts, **changes)
    with at_most(0) if reference else contextlib.nullcontext():
        answer = next(Gias().solve([task], env))
    assert not hasattr(answer, "error"), answer
    return answer, env.snapshots["small"]


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
def test_it_follows_an_independent_loop(restarts, reference):
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
    model = materialise(small.sent)
    observed = torch.cat([tensor.flatten() for tensor in small.update.tensors.values()])

    def costs(images):
        x = small.image.normalise(images)
        loss = F.cross_entropy(model(x), small.labels)
        gradients = torch.autograd.grad(loss, model.parameters(), create_graph=True)
        matching = 1 - F.cosine_similarity(torch.cat([g.flatten() for g in gradients]), observed, dim=0)
        variation = F.l1_loss(x[..., 1:], x[..., :-1]) + F.l1_loss(x[..., 1:, :], x[..., :-1, :])
        return matching, 1e-2 * variation

    def descend(variables, draw, prior, iterations, lr):
        optimizer = torch.optim.Adam(variables, lr=lr)
        stages = [int(iterations * share) for share in (3 / 8, 5 / 8, 7 / 8)]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=stages, gamma=0.1)
        best = (float("inf"), None, None)
        for iteration in range(iterations + 1):
            images = draw()
            matching, variation = costs(images)
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


@pytest.mark.parametrize("mapping_layers", [0, 2])
def test_slopes_in_latents_and_weights_are_those_of_finite_differences(mapping_layers):
    generator = small_generator(1, mapping_layers=mapping_layers).double()
    stream = Streams(0).torch("rows")
    slopes = torch.randn(2, 3, 1, 16, 16, generator=stream, dtype=torch.float64)
    vectors = torch.randn(2, 3, 6, generator=stream, dtype=torch.float64)
    latents, weights = Latents(generator, 3, weight=0.7), Weights(generator, vectors)
    for way, rows in ((latents, latents.rows(vectors)), (weights, weights.rows())):

        def total(rows, way=way):
            drawn = way.draw(rows)
            own = 0 if drawn.norm is None else way.weight * drawn.norm
            return (drawn.images * slopes).sum((1, 2, 3, 4)) + own

        pulled = way.draw(rows).pull(slopes)
        for entry in (0, 1, 7, 17, 40):
            if entry >= rows.shape[1]:
                continue
            moved = torch.zeros_like(rows)
            moved[:, entry] = 1e-6
            expected = (total(rows + moved) - total(rows - moved)) / 2e-6
            assert torch.allclose(pulled[:, entry], expected, rtol=1e-4, atol=1e-6), entry


def test_both_ways_of_drawing_agree_with_the_generator():
    generator = small_generator(3, mapping_layers=1)
    vectors = torch.randn(2, 2, 6, generator=Streams(0).torch("rows"))
    latents, weights = Latents(generator, 2), Weights(generator, vectors)
    expected = generator(vectors.flatten(0, 1)).view(2, 2, 3, 16, 16)
    assert torch.allclose(latents.draw(latents.rows(vectors)).images, expected, atol=1e-6)
    assert torch.allclose(weights.draw(weights.rows()).images, expected, atol=1e-6)
    assert torch.equal(latents.latents(latents.rows(vectors)), vectors)


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


@pytest.mark.parametrize(
    ("plan", "limit", "expected"),
    [((3, 10, 20), 100, (3, 10, 20)), ((3, 10, 20), 27, None), ((3, 10, 20), 1, (1, 0, None))],
)
def test_an_allowance_is_shared_by_both_phases(plan, limit, expected):
    restarts, latent, parameters = plan
    config = QUICK.model_copy(
        update={"restarts": restarts, "latent_iterations": latent, "parameter_iterations": parameters}
    )
    whole = _plan(config)
    within = whole.within(limit)
    assert within.evaluations <= limit
    if expected is not None:
        steps = None if within.parameters is None else within.parameters.iterations
        assert (within.restarts, within.latent.iterations, steps) == expected
    else:
        assert within.evaluations == limit
        assert within.parameters.iterations > 0
    assert whole.within(None) == whole


def test_steps_shrink_at_three_five_and_seven_eighths():
    phase = Phase(iterations=16, lr=2.0, decay=0.5)
    assert [phase.rate(i) for i in range(16)] == [2.0] * 6 + [1.0] * 4 + [0.5] * 4 + [0.25] * 2


@pytest.mark.parametrize(
    "small",
    [
        SmallProblem(n=2, kind="delta", steps=2, know_labels=True),
        SmallProblem(defense=Gaussian(GaussianConfig(sigma=1e-3))),
        SmallProblem(defense=Pruning(PruningConfig(ratio=0.7))),
        SmallProblem(task=Task("multilabel", 4), n=2, know_labels=True),
        SmallProblem(observes="aggregate", n=2),
    ],
    ids=["delta", "gaussian", "pruning", "multilabel", "aggregate"],
)
@pytest.mark.parametrize("adaptive", [False, True])
def test_lanes_answer_as_the_plain_loop_does(small, adaptive):
    config = QUICK.model_copy(update={"total_variation": 1e-2, "latent_iterations": 20})
    plain, _ = solve(small, config, reference=True, adaptive=adaptive)
    lanes, _ = solve(small, config, adaptive=adaptive)
    assert plain.formulation == "reference"
    assert plain.objective["matching"] == pytest.approx(lanes.objective["matching"], rel=1e-2, abs=1e-6)
    assert float((plain.images - lanes.images).abs().max()) < 5e-3


@pytest.mark.parametrize("tier", ["running", "exact"])
def test_lanes_and_plain_loop_agree_on_every_term(norm_problem, tier):
    settings = {"batch_norm": 0.1, "image_norm": 0.01, "total_variation": 0.01, "variation": "frobenius"}
    config = QUICK.model_copy(update=settings | {"latent_norm": 0.1, "cost": "norm_per_tensor"})
    small = norm_problem(n=2, tier=tier, know_labels=True)
    plain, _ = solve(small, config, reference=True)
    with using(EngineTable({"cpu": {"convnet": Choice("layers", 16)}})):
        lanes, snapshots = solve(small, config)
    assert (plain.formulation, lanes.formulation) == ("reference", "layers")
    assert plain.objective == pytest.approx(lanes.objective, rel=1e-2)
    weights = {**settings, "matching": 1.0, "latent_norm": 0.1}
    first = snapshots[0].objective
    assert {*first} == {*weights, "total"} - {"variation"}
    parts = sum(weights[name] * term for name, term in first.items() if name != "total")
    assert first["total"] == pytest.approx(parts, rel=1e-4)
    assert float((plain.images - lanes.images).abs().max()) < 5e-3


@pytest.mark.parametrize("formulation", ["layers", "difference", "vmap"])
def test_every_formulation_will_do(formulation):
    small = SmallProblem(model={"activation": "relu"}) if formulation == "difference" else SmallProblem()
    plain, _ = solve(small, QUICK, reference=True)
    with using(EngineTable({"cpu": {"lenet": Choice(formulation, 16)}})):
        answer, _ = solve(small, QUICK)
    assert (answer.formulation, answer.lane_width) == (formulation, 16)
    assert float((plain.images - answer.images).abs().max()) < 5e-3


def test_more_tasks_than_lanes_are_all_answered_the_same():
    small = SmallProblem()
    artifacts = {PRIOR: generator_artifact(small_generator(1))}
    tasks = [
        small.attack_task(QUICK, task_id=f"t{seed}", seed=seed, artifacts=artifacts) for seed in range(19)
    ]
    answers = {answer.task_id: answer for answer in Gias().solve(iter(tasks), small.env())}
    assert len(answers) == 19
    for seed in (0, 7, 18):
        (alone,) = Gias().solve([tasks[seed]], small.env())
        assert torch.equal(alone.images, answers[f"t{seed}"].images)


def test_tasks_with_other_generators_do_not_mix():
    small = SmallProblem()
    priors = [generator_artifact(small_generator(1, seed=seed)) for seed in range(2)]
    tasks = [
        small.attack_task(QUICK, task_id=f"t{i}", seed=0, artifacts={PRIOR: prior})
        for i, prior in enumerate(priors)
    ]
    answers = {answer.task_id: answer.images for answer in Gias().solve(tasks, small.env())}
    assert not torch.equal(answers["t0"], answers["t1"])
    (alone,) = Gias().solve([tasks[1]], small.env())
    assert torch.equal(alone.images, answers["t1"])


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


def setting(**changes):
    info = DataInfo(Task("multiclass", 10), 1, 16, {"public": 100}, True, "x")
    traits = ModelTraits(False, True, True, True, True, 8, None, 1.0)
    base = Setting(info, traits, FederationSpec(), ThreatModel(), "update")
    return replace(base, **changes)


def test_it_says_where_it_cannot_work():
    blind = ThreatModel(knowledge=KnowledgeSpec(public_data=False))
    assert GIAS.compatible(QUICK, setting()) is None
    assert "knowledge.public_data" in GIAS.compatible(QUICK, setting(threat_model=blind))
    faces = GiasConfig(prior=GeneratorConfig(checkpoint=FACES))
    portraits = DataInfo(Task("multiclass", 10), 3, 64, {}, True, "x")
    assert GIAS.compatible(faces, setting(threat_model=blind, data=portraits)) is None
    assert "3 channels" in GIAS.compatible(faces, setting())
    few = DataInfo(Task("multiclass", 10), 1, 16, {"public": 2}, True, "x")
    assert "public images" in GIAS.compatible(QUICK, setting(data=few))
    lengths = ThreatModel(knowledge=KnowledgeSpec(local_hyperparameters=False, labels="known"))
    delta = setting(federation=FederationSpec(algorithm="fedavg"), threat_model=lengths)
    assert "lengths" in GIAS.compatible(QUICK.model_copy(update={"cost": "l2"}), delta)
    assert GIAS.compatible(QUICK, delta) is None


def test_the_plan_is_the_configuration():
    plan = _plan(QUICK)
    assert plan == Plan(plan.recipe, 2, Phase(6, 0.1, 0.1), Phase(5, 1e-3, 0.1))
    assert plan.evaluations == GIAS.evaluations(QUICK) == 2 * 7 + 6
    only = QUICK.model_copy(update={"parameter_iterations": 0})
    assert _plan(only).parameters is None
