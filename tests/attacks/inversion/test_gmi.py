"""GMI and its floor: conformance, the released loop by hand, and what results depend on."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import fl.data
from attacks.base import TaskFailure
from attacks.inversion.cards_gmi import GMI, GmiConfig
from attacks.inversion.cards_random_prior import RANDOM_PRIOR, RandomPriorConfig
from attacks.inversion.config import PRIOR, DiversityConfig
from attacks.inversion.diversity import diversity
from attacks.inversion.gmi import Gmi, step
from attacks.inversion.random_prior import RandomPrior
from fl.cards import DataInfo
from fl.data import DATASETS
from fl.generators import GeneratorConfig, stage
from fl.models import MODELS, architecture, initial_state, materialise
from fl.seeds import Streams
from fl.specs import (
    Plugin,
    Task,
)
from fl.types import Artifact, RoundView
from harness.testing import AttackConformance, SmallProblem
from harness.testing.small_images import SmallPublicData

SMALL_PRIOR = GeneratorConfig(kind="wgan_gp", critic=True, latent=6, width=2, steps=4, batch_size=8)
TEN = Task("multiclass", 10)
LR = 1e-4
"""Small enough for rounding to stay small."""

QUICK = GmiConfig(prior=SMALL_PRIOR, samples=3, iterations=4)


class PriorConformance(AttackConformance):
    @pytest.fixture(autouse=True)
    def _prior(self, small_prior):
        self._small_prior = small_prior

    def artifacts(self, problem):
        return self._small_prior(problem.channels)


class TestGmi(PriorConformance):
    card = GMI
    config = QUICK


class TestGmiByTheCriticsFeatures(PriorConformance):
    card = GMI
    config = QUICK.model_copy(
        update={
            "diversity": DiversityConfig(weight=-2.0, features="critic", split="per_label"),
            "samples": 4,
        }
    )


class TestRandomPrior(PriorConformance):
    card = RANDOM_PRIOR
    config = RandomPriorConfig(prior=SMALL_PRIOR, samples=3)


def trial(small, artifacts, config=QUICK, *, targets=(0, 1), group="trial", **changes):
    return [
        small.attack_task(
            config, task_id=f"{group}/{target}", target=target, group=group, artifacts=artifacts, **changes
        )
        for target in targets
    ]


def solve(attack, tasks, env=None):
    answers = list(attack.solve(tasks, env or SmallProblem().env()))
    assert not any(isinstance(answer, TaskFailure) for answer in answers), answers
    return answers


def first_latents(labels, samples, latent, seed=0):
    streams = [Streams(seed).at(target=label) for label in labels]
    drawn = [
        [torch.randn(latent, generator=s.torch("first_latents", restart=k)) for k in range(samples)]
        for s in streams
    ]
    return torch.stack([torch.stack(of_label) for of_label in drawn])


@pytest.mark.parametrize("weight", [0.0, 3.0, -3.0])
def test_it_follows_the_released_loop(small_prior, weight):
    """One run per sample, as released: a batch of one image of each label, losses averaged over it."""
    config = QUICK.model_copy(update={"diversity": DiversityConfig(weight=weight), "iterations": 6, "lr": LR})
    small, labels = SmallProblem(observes="global_model"), (3, 1, 7)
    answers = solve(Gmi(), trial(small, small_prior(), config, targets=labels))
    generator, critic = (load(small_prior()[PRIOR]) for load in (stage.load, stage.load_critic))
    model = materialise(small.sent).eval()
    z = first_latents(labels, 3, 6)
    v = torch.zeros_like(z)
    for _ in range(6):
        z = z.requires_grad_()
        fake = generator(z.reshape(9, 6)).reshape(3, 3, 1, 16, 16)
        loss = 0
        for run in range(3):
            batch = fake[:, run]
            score = critic(batch).mean()
            identity = F.cross_entropy(model((batch - 0.5) / 0.25), torch.tensor(labels))
            loss = loss - score + 100 * identity
        if weight:
            every = fake.reshape(9, 1, 16, 16)
            loss = loss + weight * diversity(every, torch.zeros(9), DiversityConfig())
        (gradient,) = torch.autograd.grad(loss, z)
        v_before, v = v, 0.9 * v - LR * gradient
        z = (z.detach() - 0.9 * v_before + 1.9 * v).clamp(-1, 1)
    with torch.no_grad():
        expected = generator(z.reshape(9, 6)).reshape(3, 3, 1, 16, 16)
    for answer, images in zip(answers, expected, strict=True):
        torch.testing.assert_close(answer.images, images, atol=1e-5, rtol=1e-4)
        assert answer.labels is None


def test_a_step_is_nesterovs():
    """In the look-ahead's variables: x' = x + v', v' = m v - lr g(x + m v), and z = x + m v."""
    config = GmiConfig(lr=0.1, momentum=0.8, clamp=100.0)

    def slope(x):
        return 3 * x - torch.tensor([1.0, -2.0])

    x, velocity = torch.tensor([0.3, 0.4]), torch.tensor([0.2, -0.1])
    z, v = x + 0.8 * velocity, velocity
    for _ in range(5):
        velocity = 0.8 * velocity - 0.1 * slope(x + 0.8 * velocity)
        x = x + velocity
        z, v = step(z, v, slope(z), config)
        torch.testing.assert_close(z, x + 0.8 * velocity)


def test_latent_vectors_stay_in_the_box():
    stream = Streams(0).torch("steps")
    z, v = (5 * torch.randn(4, 3, 6, generator=stream) for _ in range(2))
    for clamp in (1.0, 0.5):
        for _ in range(20):
            gradient = 1e4 * torch.randn(4, 3, 6, generator=stream)
            z, v = step(z, v, gradient, GmiConfig(clamp=clamp))
            assert float(z.abs().max()) <= clamp


def test_samples_do_not_change_one_another(small_prior):
    """Without the term for diversity; a released run knows nothing of the others."""
    small = SmallProblem(observes="global_model")
    alone = QUICK.model_copy(update={"diversity": DiversityConfig(weight=0.0), "lr": LR})
    few = alone.model_copy(update={"samples": 1})
    for more, one in zip(
        *(solve(Gmi(), trial(small, small_prior(), config)) for config in (alone, few)), strict=True
    ):
        torch.testing.assert_close(more.images[:1], one.images, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("features", ["pixels", "critic"])
def test_many_images_pass_in_parts(small_prior, monkeypatch, features):
    term = DiversityConfig(weight=-3.0, features=features)
    config = QUICK.model_copy(update={"diversity": term, "lr": LR})
    small = SmallProblem(observes="global_model")
    whole = solve(Gmi(), trial(small, small_prior(), config, targets=range(3)))
    monkeypatch.setattr("attacks.inversion.gmi.MOST_IMAGES", 4)
    for one, other in zip(
        whole, solve(Gmi(), trial(small, small_prior(), config, targets=range(3))), strict=True
    ):
        torch.testing.assert_close(one.images, other.images, atol=1e-5, rtol=1e-4)
        assert one.objective == pytest.approx(other.objective, rel=1e-3, abs=1e-4)


def test_a_start_does_not_depend_on_the_other_labels(small_prior):
    small = SmallProblem(observes="global_model")
    unmoved = QUICK.model_copy(update={"lr": 1e-30})
    both = solve(Gmi(), trial(small, small_prior(), unmoved, targets=(2, 5)))
    alone = solve(Gmi(), trial(small, small_prior(), unmoved, targets=(5,)))
    torch.testing.assert_close(both[1].images, alone[0].images)


def test_the_floor_is_where_gmi_starts(small_prior):
    small = SmallProblem(observes="global_model")
    floor = solve(RandomPrior(), trial(small, small_prior(), RandomPriorConfig(prior=SMALL_PRIOR, samples=3)))
    env = small.env()
    solve(Gmi(), trial(small, small_prior(), QUICK), env)
    for answer in floor:
        torch.testing.assert_close(answer.images, env.snapshots[answer.task_id][0].images)
        assert answer.gradient_evaluations == 0
    assert not torch.equal(floor[0].images, floor[1].images)


def test_terms_are_logged_apart(small_prior):
    small, env = SmallProblem(observes="global_model"), SmallProblem().env()
    config = QUICK.model_copy(update={"iterations": 90, "lr": 1e-3})
    answers = solve(Gmi(), trial(small, small_prior(), config), env)
    for answer in answers:
        snapshots = env.snapshots[answer.task_id]
        assert [s.iteration for s in snapshots] == [*range(0, 90, 3), 90]
        for snapshot in snapshots:
            terms = snapshot.objective
            assert set(terms) == {"critic", "identity", "diversity", "total"}
            total = 3 * (terms["critic"] + 100 * terms["identity"]) + 0.05 * terms["diversity"]
            assert terms["total"] == pytest.approx(total, rel=1e-5)
            assert snapshot.images.shape == (3, 1, 16, 16)
        lows = [snapshot.best for snapshot in snapshots]
        assert lows == sorted(lows, reverse=True)
        assert lows[-1] <= min(snapshot.objective["total"] for snapshot in snapshots)
        assert dict(answer.objective) == dict(snapshots[-1].objective)
        assert answer.objective["total"] < snapshots[0].objective["total"]
    shared = {answer.objective["diversity"] for answer in answers}
    assert len(shared) == 1
    assert answers[0].objective["identity"] != answers[1].objective["identity"]
    assert answers[0].gradient_evaluations == 90


def batch_normed(mode):
    """A trial's tasks against a model with batch norm, in a mode of the federation's."""
    small = SmallProblem(observes="global_model")
    info = DataInfo(Task("multiclass", 10), 1, 16, {}, True, "x", mean=(0.5,), std=(0.25,))
    card = MODELS.get("mcnn")
    model = architecture(Plugin(card.name, card.version, card.config()), info)
    state = initial_state(model, streams=Streams(0), freeze="none", batch_norm=mode)
    return small, replace(small.observation, history=(RoundView(0, state, None),))


def test_the_models_stored_statistics_are_used(small_prior):
    """Whatever the clients' mode, or an image's logits would depend on its neighbours."""
    small, _ = batch_normed("eval")
    tasks = trial(small, small_prior(), QUICK.model_copy(update={"iterations": 2}))

    def against(observation):
        return [a.images for a in solve(Gmi(), [replace(task, observation=observation) for task in tasks])]

    (_, training), (_, observed) = batch_normed("train"), batch_normed("eval")
    tensors = {k: 4 * v if k.endswith("running_var") else v for k, v in observed.sent.tensors.items()}
    other = RoundView(0, replace(observed.sent, tensors=tensors), None)
    for first, second, third in zip(
        against(training), against(observed), against(replace(observed, history=(other,))), strict=True
    ):
        assert torch.equal(first, second)
        assert not torch.equal(second, third)


def test_a_missing_or_unfit_prior_is_said(small_prior):
    small = SmallProblem(observes="global_model")
    plain = small_prior(config=SMALL_PRIOR.model_copy(update={"critic": False}))
    for artifacts, words in (
        ({}, "plan the trial with it"),
        (small_prior(3), "3 channels"),
        (plain, "critic: true"),
    ):
        answers = list(Gmi().solve(trial(small, artifacts), small.env()))
        assert len(answers) == 2
        for answer in answers:
            assert isinstance(answer, TaskFailure)
            assert words in answer.error


def test_what_diverges_is_a_failure(small_prior):
    prior = small_prior()[PRIOR]
    tensors = dict(prior.tensors)
    tensors["weights.synthesis.to_images.bias"] = torch.full((1,), torch.nan)
    artifacts = {PRIOR: Artifact(tensors, prior.data)}
    small = SmallProblem(observes="global_model")
    floor = RandomPriorConfig(prior=SMALL_PRIOR)
    for attack, config in ((Gmi(), QUICK), (RandomPrior(), floor)):
        answers = list(attack.solve(trial(small, artifacts, config), small.env()))
        assert len(answers) == 2
        for answer in answers:
            assert isinstance(answer, TaskFailure)
            assert "its generator or the attacked model diverged" in answer.error


def test_a_failure_is_its_trials_alone(small_prior):
    small = SmallProblem(observes="global_model")
    good, bad = trial(small, small_prior()), trial(small, {}, group="other")
    answers = {a.task_id: a for a in Gmi().solve([*bad, *good], small.env())}
    assert {isinstance(answers[t.task_id], TaskFailure) for t in bad} == {True}
    for answer in solve(Gmi(), good):
        assert torch.equal(answers[answer.task_id].images, answer.images)


@pytest.mark.slow
def test_the_model_is_surer_of_gmis_images_than_of_the_floors():
    """A convolutional net trained on real digits 0 to 4, a GAN of digits 5 to 9."""
    digits = fl.data.load(Plugin("digits", 1, DATASETS.get("digits").config(size=16)))
    part = digits.part("private")
    chosen = [i for i, label in enumerate(part.labels.tolist()) if label < 5]
    images, labels = part.images(chosen), part.labels[chosen]
    small = SmallProblem(observes="global_model", model={"convs": 3})
    model = materialise(small.sent)
    model.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for number in range(400):
        batch = torch.randint(len(images), (32,), generator=Streams(0).torch("batch", step=number))
        loss = F.cross_entropy(model(small.image.normalise(images[batch])), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = (model(small.image.normalise(images)).argmax(1) == labels).float().mean()
    assert accuracy > 0.9
    trained = replace(small.sent, tensors={k: t.detach().clone() for k, t in model.state_dict().items()})
    public = digits.part("public")
    others = [i for i, label in enumerate(public.labels.tolist()) if label >= 5]
    prior_data = SmallPublicData(public.images(others), public.labels[others])
    context = replace(small.stage_context(), public=prior_data)
    config = GeneratorConfig(kind="wgan_gp", critic=True, latent=32, width=8, steps=150, lr=5e-4, average=0.9)
    made = {PRIOR: stage.train({"generator": config.resolved(), "image": [1, 16]}, {}, context)}
    observation = replace(small.observation, history=(RoundView(1, trained, None),))

    def confidence(attack, config):
        tasks = trial(small, made, config, targets=range(5))
        answers = solve(attack, [replace(task, observation=observation) for task in tasks])
        logits = [materialise(trained)(small.image.normalise(a.images)) for a in answers]
        return torch.stack([found.softmax(1)[:, label] for label, found in enumerate(logits)])

    floor = confidence(RandomPrior(), RandomPriorConfig(prior=config, samples=6))
    found = confidence(Gmi(), GmiConfig(prior=config, samples=6, iterations=100))
    assert floor.mean() < 0.4
    assert found.mean() > 0.9
    assert (found > floor).float().mean() > 0.9
