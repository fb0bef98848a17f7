import contextlib
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from attacks.cards_generative import PRIOR
from attacks.cards_gifd import GIFD, GifdConfig
from attacks.engine.table import Choice, EngineTable, at_most, using
from attacks.generative_plan import Phase
from attacks.gifd import Gifd, _plan
from attacks.parametrisations import Features, Latents, Weights, styles_of
from defenses.catalog import GaussianConfig, PruningConfig
from defenses.gaussian import Gaussian
from defenses.pruning import Pruning
from fl.cards import DataInfo, ModelTraits, Setting
from fl.generators.architecture import Generator
from fl.generators.config import GeneratorConfig
from fl.generators.layout import Layout
from fl.models import materialise
from fl.seeds import Streams
from fl.specs import FederationSpec, KnowledgeSpec, Task, ThreatModel
from harness.testing import AttackConformance, SmallProblem
from harness.testing.small_generators import generator_artifact, small_generator

QUICK = GifdConfig(
    prior=GeneratorConfig(latent=6, width=2), restarts=2, iterations=6, depth=2, radii=(20.0, 40.0)
)


def solve(small, config, generator=None, *, reference=False, **changes):
    env = small.env()
    artifacts = {PRIOR: generator_artifact(generator or small_generator(small.channels))}
    task = small.attack_task(config, artifacts=artifacts, **changes)
    with at_most(0) if reference else contextlib.nullcontext():
        answer = next(Gifd().solve([task], env))
    assert not hasattr(answer, "error"), answer
    return answer, env.snapshots["small"]


class TestConformance(AttackConformance):
    card = GIFD
    config = QUICK

    def artifacts(self, problem):
        return {PRIOR: generator_artifact(small_generator(problem.channels))}


class TestConformanceByClass(TestConformance):
    """With a generator that draws by the labels that the attacker works with."""

    def artifacts(self, problem):
        classes = problem.task.outputs
        return {PRIOR: generator_artifact(small_generator(problem.channels, classes=classes))}


class TestConformanceOfThePlainLoop(TestConformance):
    def _solve(self, tasks, env=None):
        with at_most(0):
            return super()._solve(tasks, env)


def nearest_in_ball(offsets, radius):
    """Shrink all entries by one amount, found by bisection."""
    if offsets.abs().sum() <= radius:
        return offsets
    low, high = 0.0, float(offsets.abs().max())
    for _ in range(60):
        middle = (low + high) / 2
        left = (offsets.double().abs() - middle).clamp(min=0)
        low, high = (middle, high) if left.sum() > radius else (low, middle)
    return offsets.sign() * left.to(offsets)


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("classes", [0, 10])
def test_it_follows_an_independent_loop(reference, classes):
    """Adam on z, then on the features of one block after the other, each in its ball; the best of all."""
    config = GifdConfig(
        prior=QUICK.prior,
        restarts=2,
        iterations=10,
        lr=0.02,
        depth=2,
        radii=(0.5, 2.0),
        total_variation=1e-2,
    )
    small, generator = SmallProblem(n=2, know_labels=True), small_generator(1, classes=classes)
    answer, _ = solve(small, config, generator, reference=reference)
    task, model = small.attack_task(config), materialise(small.sent)
    observed = torch.cat([tensor.flatten() for tensor in small.update.tensors.values()])
    given = small.labels if classes else None

    def costs(images):
        x = small.image.normalise(images)
        loss = F.cross_entropy(model(x), small.labels)
        gradients = torch.autograd.grad(loss, model.parameters(), create_graph=True)
        matching = 1 - F.cosine_similarity(torch.cat([g.flatten() for g in gradients]), observed, dim=0)
        variation = F.l1_loss(x[..., 1:], x[..., :-1]) + F.l1_loss(x[..., 1:, :], x[..., :-1, :])
        return matching, 1e-2 * variation

    def descend(start, draw, radius):
        variable = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([variable], lr=0.02)
        best = (float("inf"), None, None)
        for step in range(11):
            images = draw(variable)
            matching, variation = costs(images)
            if matching < best[0]:
                best = (float(matching.detach()), images.detach(), variable.detach().clone())
            if step == 10:
                return best
            t = step / 10
            ramp = 0.5 - 0.5 * math.cos(math.pi * min(1, (1 - t) / 0.75))
            optimizer.param_groups[0]["lr"] = 0.02 * ramp * min(1, t / 0.05)
            (variable.grad,) = torch.autograd.grad(matching + variation, variable)
            optimizer.step()
            if radius is not None:
                with torch.no_grad():
                    offsets = [nearest_in_ball(offset, radius) for offset in variable - start]
                    variable.copy_(start + torch.stack(offsets))

    outcomes = []
    for restart in range(2):
        z = torch.randn(2, 6, generator=task.streams.torch("first_latents", restart=restart))
        outcomes.append(descend(z, lambda z: generator(z, given), None))
        styles = features = generator.styles(outcomes[-1][2], given)
        for number, radius in enumerate(config.radii):
            features = generator.blocks[number](features)

            def draw(v, number=number, styles=styles):
                return generator.synthesis.after(v, number + 1, styles)

            outcomes.append(descend(features, draw, radius))
            features = outcomes[-1][2]
    expected = min(outcomes, key=lambda outcome: outcome[0])
    assert answer.objective["matching"] == pytest.approx(expected[0], rel=1e-3, abs=1e-6)
    assert float((answer.images - expected[1]).abs().max()) < 2e-3
    assert answer.gradient_evaluations == 2 * 3 * 11


def test_features_that_no_latent_vector_gives_are_found():
    """The truth is G after features that were moved, within the ball, off what G_0 gives."""
    generator = small_generator(1, width=4)
    stream = Streams(5).torch("truth")
    z = torch.randn(1, 6, generator=stream)
    made = generator.synthesis.enter(z, 0, z)
    moved = made + 60.0 / made.numel() * torch.randn(made.shape, generator=stream)
    small = SmallProblem(know_labels=True)
    small.__dict__["images"] = generator.synthesis.after(moved, 1, z)
    config = QUICK.model_copy(
        update={"iterations": 150, "restarts": 3, "total_variation": 0.0, "depth": 1, "radii": (120.0,)}
    )
    walked, _ = solve(small, config, generator)
    latent, _ = solve(small, config.model_copy(update={"depth": 0}), generator)
    assert walked.objective["matching"] < latent.objective["matching"] / 3
    errors = [float((answer.images - small.images).square().mean()) for answer in (walked, latent)]
    assert errors[0] < errors[1]


def test_balls_without_radius_leave_what_the_latent_search_found():
    small = SmallProblem(n=2, know_labels=True)
    still, _ = solve(small, QUICK.model_copy(update={"radii": (0.0,)}))
    latent, _ = solve(small, QUICK.model_copy(update={"depth": 0}))
    assert still.objective["matching"] == pytest.approx(latent.objective["matching"], abs=1e-6)
    assert torch.allclose(still.images, latent.images, atol=1e-6)
    assert still.gradient_evaluations == 3 * latent.gradient_evaluations


def test_cost_never_rises_from_phase_to_phase():
    small = SmallProblem()
    env, config = small.env(), QUICK.model_copy(update={"restarts": 1, "lr": 2.0, "depth": 3})
    task = small.attack_task(config, artifacts={PRIOR: generator_artifact(small_generator(1))})
    (answer,) = Gifd().solve([task], env)
    costs = [snapshot.objective["matching"] for snapshot in env.snapshots["small"]]
    assert len(costs) == 4 * 7
    phases = [costs[i : i + 7] for i in range(0, 28, 7)]
    assert any(max(phase) > phase[0] for phase in phases[1:]), "expected steps this long to do harm"
    for before, after in pairwise(phases):
        assert after[0] == pytest.approx(min(before), abs=1e-6)
    assert answer.objective["matching"] == min(costs)


def test_the_restart_with_the_lowest_cost_is_the_answer():
    small = SmallProblem(seed=1)
    answer, snapshots = solve(small, QUICK.model_copy(update={"restarts": 4}))
    by_restart = [min(s.objective["matching"] for s in snapshots if s.restart == r) for r in range(4)]
    assert len(set(by_restart)) == 4
    assert answer.objective["matching"] == min(by_restart)
    assert min(by_restart) < by_restart[-1], "expected another than the last, lest the test say nothing"


@pytest.mark.parametrize("block", [1, 2, 3])
def test_slopes_in_features_are_those_of_finite_differences(block):
    generator = small_generator(1).double()
    stream = Streams(0).torch("rows")
    styles = torch.randn(6, 6, generator=stream, dtype=torch.float64)
    features = styles
    for number in range(block):
        features = generator.synthesis.enter(features, number, styles)
    way = Features(generator, block, features.unflatten(0, (2, 3)), styles, radius=1.0)
    slopes = torch.randn(2, 3, 1, 16, 16, generator=stream, dtype=torch.float64)
    rows = way.rows()
    assert torch.equal(way.features(rows).flatten(0, 1), features)
    assert torch.allclose(way.draw(rows).images.flatten(0, 1), generator(styles))

    def total(rows):
        return (way.draw(rows).images * slopes).sum((1, 2, 3, 4))

    pulled = way.draw(rows).pull(slopes)
    for entry in (0, 1, 17, features[0].numel() + 5, rows.shape[1] - 1):
        moved = torch.zeros_like(rows)
        moved[:, entry] = 1e-6
        expected = (total(rows + moved) - total(rows - moved)) / 2e-6
        assert torch.allclose(pulled[:, entry], expected, rtol=1e-4, atol=1e-6), entry


@pytest.mark.parametrize(
    "layout",
    [
        Layout("transposed", 3, 64, latent=4, width=2, classes=3),
        Layout("ggl", 3, 32, latent=4, width=2, mapping_layers=1),
        Layout("biggan_deep_256", 3, 256, latent=4, width=8, shown=32, classes=3),
    ],
    ids=lambda layout: layout.family,
)
def test_all_ways_of_drawing_agree_for_every_architecture(layout):
    generator, stream = Generator(layout).eval().requires_grad_(False), Streams(0).torch("weights")
    for parameter in generator.parameters():
        parameter.normal_(0.0, 0.7 * parameter[0].numel() ** -0.5, generator=stream)
    latents = torch.randn(1, 2, 4, generator=Streams(0).torch("latents"))
    labels = torch.tensor([[2, 0]]) if layout.classes else None
    expected = generator(latents[0], None if labels is None else labels[0])
    styles = features = styles_of(generator, latents, labels)
    ways = [Latents(generator, 2, labels=labels), Weights(generator, latents, labels)]
    drawn = [ways[0].draw(ways[0].rows(latents)), ways[1].draw(ways[1].rows())]
    for number in range(len(generator.blocks)):
        features = generator.synthesis.enter(features, number, styles)
        if number % 4 == 0:
            way = Features(generator, number + 1, features[None], styles, radius=1.0)
            drawn.append(way.draw(way.rows()))
    for each in drawn:
        assert torch.allclose(each.images[0], expected, atol=1e-5)
        assert each.pull(torch.ones_like(each.images)).isfinite().all()


def test_each_images_features_stay_in_a_ball_of_their_own():
    generator = small_generator(1)
    styles = torch.randn(4, 6, generator=Streams(0).torch("styles"))
    first = generator.synthesis.enter(styles, 0, styles).unflatten(0, (2, 2))
    way = Features(generator, 1, first, styles, radius=5.0)
    moved = first.clone()
    moved[0, 0] += 1.0
    moved[1, 1] += 1e-3
    kept = way.features(way.confined(way.rows()))
    assert torch.equal(kept, first)
    rows = F.pad(moved.flatten(1), (0, way.rows().shape[1] - moved[0].numel()))
    offsets = (way.features(way.confined(rows)) - first).abs().flatten(2).sum(2)
    assert offsets[0].tolist() == pytest.approx([5.0, 0.0], rel=1e-4)
    assert offsets[1].tolist() == pytest.approx([0.0, 1e-3 * first[0, 0].numel()], rel=1e-2)


def test_steps_rise_and_fall():
    """Over the first twentieth, then along a cosine over the last three quarters; none in the first step."""
    phase = Phase(iterations=1000, lr=2.0, decay=None)
    rates = [phase.rate(i) for i in range(1000)]
    assert rates[0] == 0
    assert rates[25] == pytest.approx(1.0)
    assert rates[50:250] == pytest.approx([2.0] * 200)
    assert rates[625] == pytest.approx(1.0)
    assert rates[999] < 1e-4
    assert rates[250:] == sorted(rates[250:], reverse=True)


@pytest.mark.parametrize(
    "small",
    [
        SmallProblem(n=2, kind="delta", steps=2, know_labels=True),
        SmallProblem(defense=Gaussian(GaussianConfig(sigma=1e-3))),
        SmallProblem(defense=Pruning(PruningConfig(ratio=0.7))),
        SmallProblem(task=Task("multilabel", 4), n=2, know_labels=True),
    ],
    ids=["delta", "gaussian", "pruning", "multilabel"],
)
@pytest.mark.parametrize("adaptive", [False, True])
def test_lanes_answer_as_the_plain_loop_does(small, adaptive):
    generator = small_generator(small.channels, classes=small.task.outputs)
    config = QUICK.model_copy(update={"lr": 0.02})
    plain, _ = solve(small, config, generator, reference=True, adaptive=adaptive)
    lanes, _ = solve(small, config, generator, adaptive=adaptive)
    assert plain.formulation == "reference"
    assert plain.objective["matching"] == pytest.approx(lanes.objective["matching"], rel=1e-2, abs=1e-6)
    assert float((plain.images - lanes.images).abs().max()) < 5e-3


def test_more_rows_than_lanes_are_all_answered_the_same():
    small, artifacts = SmallProblem(), {PRIOR: generator_artifact(small_generator(1))}
    tasks = [
        small.attack_task(QUICK, task_id=f"t{seed}", seed=seed, artifacts=artifacts) for seed in range(9)
    ]
    with using(EngineTable({"cpu": {"lenet": Choice("layers", 4)}})):
        answers = {answer.task_id: answer for answer in Gifd().solve(iter(tasks), small.env())}
        assert len(answers) == 9
        for seed in (0, 5, 8):
            (alone,) = Gifd().solve([tasks[seed]], small.env())
            assert torch.equal(alone.images, answers[f"t{seed}"].images)


def test_an_adaptive_attacker_mirrors_the_defense():
    small = SmallProblem(defense=Pruning(PruningConfig(ratio=0.9)), know_labels=True)
    config = QUICK.model_copy(update={"iterations": 60})
    static, _ = solve(small, config)
    adaptive, _ = solve(small, config, adaptive=True)
    assert adaptive.objective["matching"] < static.objective["matching"]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(1000, (4, 10, 0, 3)), (88, (4, 4, 0, 3)), (20, (2, 1, 0, 3)), (5, (1, 1, 0, 1)), (1, (1, 0, 0, 0))],
)
def test_an_allowance_gives_up_steps_then_restarts_then_blocks(limit, expected):
    config = GifdConfig(restarts=4, iterations=10, depth=3)
    within = _plan(config).within(limit)
    assert within.shape == expected
    assert within.evaluations <= limit


def test_there_are_no_more_phases_than_the_generator_has_blocks():
    config = GifdConfig(restarts=1, iterations=2, depth=9, radii=(1.0, 2.0))
    assert _plan(config).features.radii == (1.0, *[2.0] * 8)
    assert _plan(config).through(3).features.radii == (1.0, 2.0, 2.0)
    assert _plan(config).evaluations == GIFD.evaluations(config) == 10 * 3
    answer, _ = solve(SmallProblem(), config)
    assert answer.gradient_evaluations == (len(small_generator(1).blocks) + 1) * 3


def setting(**changes):
    info = DataInfo(Task("multiclass", 10), 1, 16, {"public": 100}, True, "x")
    traits = ModelTraits(False, True, True, True, True, 8, None, 1.0)
    return replace(Setting(info, traits, FederationSpec(), ThreatModel(), "update"), **changes)


def test_it_says_where_it_cannot_work():
    assert GIFD.compatible(QUICK, setting()) is None
    by_class = GifdConfig(prior=GeneratorConfig(conditional=True))
    assert GIFD.compatible(by_class, setting()) is None
    others = DataInfo(Task("multiclass", 3), 1, 16, {"public": 100}, True, "y")
    assert "another task's" in GIFD.compatible(by_class, setting(public=others))
    assert GIFD.compatible(QUICK, setting(public=others)) is None
    blind = ThreatModel(knowledge=KnowledgeSpec(public_data=False))
    assert "knowledge.public_data" in GIFD.compatible(QUICK, setting(threat_model=blind))


def test_labels_of_another_number_than_the_generators_are_a_failure():
    small = SmallProblem()
    task = small.attack_task(QUICK, artifacts={PRIOR: generator_artifact(small_generator(1, classes=7))})
    assert "draws by 7 classes, the task has 10" in next(Gifd().solve([task], small.env())).error
