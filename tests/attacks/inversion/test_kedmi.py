"""KED-MI's recovery: conformance, its Gaussians, and what results depend on."""

import functools

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from attacks.base import TaskFailure
from attacks.inversion import kedmi_gan
from attacks.inversion.cards_kedmi import KEDMI, KedmiConfig, KedmiGanConfig
from attacks.inversion.config import DiversityConfig
from attacks.inversion.diversity import diversity
from attacks.inversion.gan_request import GAN
from attacks.inversion.kedmi import Kedmi
from attacks.inversion.kedmi_losses import realism
from fl.generators.stage import load
from fl.seeds import Streams
from fl.types import Artifact
from harness.testing import AttackConformance, SmallProblem

SMALL_GAN = KedmiGanConfig(
    steps=4, critic_steps=2, batch_size=8, latent=6, width=2, kernels=3, kernel_dimensions=2
)
QUICK = KedmiConfig(gan=SMALL_GAN, samples=3, iterations=4)
PROBLEM = SmallProblem(observes="global_model")


@functools.cache
def made(channels=1):
    problem = SmallProblem(channels=channels, observes="global_model")
    return {GAN: kedmi_gan.train({"gan": SMALL_GAN.resolved()}, {}, problem.stage_context())}


class TestKedmi(AttackConformance):
    card = KEDMI
    config = QUICK

    def artifacts(self, problem):
        return made(problem.channels)


class TestKedmiByTheDiscriminatorsFeatures(TestKedmi):
    config = QUICK.model_copy(
        update={"bounds": "tanh", "diversity": DiversityConfig(weight=-2.0, features="critic")}
    )


def trial(config=QUICK, *, targets=(0, 1, 2, 3), **changes):
    return [
        PROBLEM.attack_task(
            config, task_id=f"t/{target}", target=target, group="t", artifacts=made(), **changes
        )
        for target in targets
    ]


def solve(config=QUICK, env=None, **changes):
    answers = list(Kedmi().solve(trial(config, **changes), env or PROBLEM.env()))
    assert not any(isinstance(answer, TaskFailure) for answer in answers), answers
    return answers


def by_hand(config, labels, iterations):
    """Means, log variances and the last terms, from the formulas, with an optimizer for every entry."""
    generator, critic = load(made()[GAN]), kedmi_gan.discriminator(made()[GAN], torch.device("cpu"))
    module = PROBLEM.stage_context().build(PROBLEM.sent).eval()
    means = torch.zeros(len(labels), 6, requires_grad=True)
    logvars = torch.full((len(labels), 6), config.first_logvar, requires_grad=True)
    optimizer = torch.optim.Adam([means, logvars], lr=config.lr)
    streams = [Streams(0).at(target=label).torch("latent_noise") for label in labels]
    targets = torch.tensor(labels)
    for _ in range(iterations):
        noise = torch.stack([torch.randn(6, generator=stream) for stream in streams])
        images = generator(means + torch.exp(0.5 * logvars) * noise)
        identity = F.cross_entropy(module(PROBLEM.image.normalise(images)), targets)
        h = diversity(images, targets, config.diversity)
        loss = realism(critic(images)).mean() + 100 * identity + config.diversity.weight * h
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return means.detach(), logvars.detach(), generator


@pytest.mark.parametrize("first_logvar", [0.0, 1.0])
def test_images_are_draws_from_the_fitted_gaussians(first_logvar):
    config = QUICK.model_copy(update={"first_logvar": first_logvar})
    means, logvars, generator = by_hand(config, [0, 1, 2, 3], 4)
    for label, answer in enumerate(solve(config)):
        for sample, image in enumerate(answer.images):
            stream = Streams(0).at(target=label).torch("first_latents", restart=sample)
            noise = torch.randn(6, generator=stream)
            latent = means[label] + (logvars[label] / 2).exp() * noise
            assert torch.allclose(image, generator(latent[None])[0], atol=1e-4)


def test_gaussians_move():
    before, after = (solve(QUICK.model_copy(update={"iterations": n})) for n in (1, 30))
    assert all(not torch.equal(a.images, b.images) for a, b in zip(before, after, strict=True))


def test_a_first_draw_of_a_label_does_not_depend_on_the_others():
    """Without a single step, whatever is attacked along."""
    config = QUICK.model_copy(update={"diversity": DiversityConfig(weight=0.0)})
    together = solve(config, max_evaluations=0)
    alone = solve(config, targets=(2,), max_evaluations=0)
    assert torch.allclose(together[2].images, alone[0].images, atol=1e-6)


@pytest.mark.parametrize(
    ("bounds", "function"), [("clamp", lambda z: z.clamp(-1, 1)), ("tanh", torch.tanh), ("none", lambda z: z)]
)
def test_bounds_act_before_the_generator(bounds, function):
    config = QUICK.model_copy(update={"bounds": bounds, "first_logvar": 2.0})
    (answer,) = solve(config, targets=(1,), max_evaluations=0)
    stream = Streams(0).at(target=1).torch("first_latents", restart=0)
    latent = torch.e * torch.randn(1, 6, generator=stream)
    assert torch.allclose(answer.images[:1], load(made()[GAN])(function(latent)), atol=1e-5)


def test_the_cross_entropy_falls():
    config = QUICK.model_copy(update={"iterations": 60, "lr": 0.1})
    start, end = (solve(config, max_evaluations=n) for n in (0, 60))
    assert all(b.objective["identity"] < a.objective["identity"] for a, b in zip(start, end, strict=True))


def test_terms_are_reported_apart():
    weighted, plain = solve(), solve(QUICK.model_copy(update={"diversity": DiversityConfig(weight=0.0)}))
    for answer in weighted:
        found = answer.objective
        expected = found["realism"] + 100 * found["identity"] + 0.05 * found["diversity"]
        assert found["total"] == pytest.approx(expected, rel=1e-4)
        assert answer.gradient_evaluations == answer.lane_iterations == 4
    assert all(set(answer.objective) == {"realism", "identity", "total"} for answer in plain)


def test_snapshots_span_the_run():
    env = PROBLEM.env()
    solve(QUICK.model_copy(update={"iterations": 90}), env=env)
    snapshots = env.snapshots["t/1"]
    assert [snapshots[0].iteration, snapshots[-1].iteration] == [0, 90]
    assert len(snapshots) == 31
    assert snapshots[-1].images.shape == (3, 1, 16, 16)


def test_without_its_gan_it_says_what_is_missing():
    task = PROBLEM.attack_task(QUICK, artifacts={"other": Artifact({})})
    (answer,) = Kedmi().solve([task], PROBLEM.env())
    assert "expected 'gan' from its stage, got none" in answer.error


def test_a_term_that_would_always_be_nothing_is_refused():
    with pytest.raises(ValidationError, match=r"split: halves \(an iteration has one image of each label\)"):
        KedmiConfig(diversity={"split": "per_label"})
    assert KedmiConfig(diversity={"weight": 1}).diversity.split == "halves"
