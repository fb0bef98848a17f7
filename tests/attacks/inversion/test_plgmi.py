"""PLG-MI's search: conformance, its loop by hand, and what results depend on."""

import functools

import pytest
import torch

from attacks.base import TaskFailure
from attacks.inversion import plgmi_gan
from attacks.inversion.cards_plgmi import (
    PLGMI,
    PlgmiConfig,
    PlgmiDiversityConfig,
    PlgmiGanConfig,
    ViewsConfig,
)
from attacks.inversion.gan_request import GAN
from attacks.inversion.plgmi import Plgmi
from attacks.inversion.views import DRAWS, views
from fl.generators.stage import load
from fl.seeds import Streams
from harness.testing import AttackConformance, SmallProblem

SMALL_GAN = PlgmiGanConfig(top_n=3, steps=2, critic_steps=2, batch_size=8, latent=6, width=2)
QUICK = PlgmiConfig(gan=SMALL_GAN, samples=3, iterations=4)
PROBLEM = SmallProblem(observes="global_model")


@functools.cache
def made(channels=1):
    problem = SmallProblem(channels=channels, observes="global_model")
    needs = {"gan": SMALL_GAN.resolved(), "views": ViewsConfig().resolved()}
    return {GAN: plgmi_gan.train(needs, {}, problem.stage_context())}


class TestPlgmi(AttackConformance):
    card = PLGMI
    config = QUICK

    def artifacts(self, problem):
        return made(problem.channels)


class TestPlgmiByTheDiscriminatorsFeatures(TestPlgmi):
    config = QUICK.model_copy(
        update={
            "diversity": PlgmiDiversityConfig(weight=-2.0, features="critic", split="per_label"),
            "samples": 4,
        }
    )


def solve(config=QUICK, *, targets=(0, 4), env=None, **changes):
    tasks = [
        PROBLEM.attack_task(
            config, task_id=f"t/{target}", target=target, group="t", artifacts=made(), **changes
        )
        for target in targets
    ]
    answers = list(Plgmi().solve(tasks, env or PROBLEM.env()))
    assert not any(isinstance(answer, TaskFailure) for answer in answers), answers
    return answers


def searched(label, sample, iterations, config=QUICK):
    """The image of one start, alone: nothing but its own latent vector and views is used."""
    generator = load(made()[GAN])
    module = PROBLEM.stage_context().build(PROBLEM.sent).eval()
    own = Streams(0).at(target=label)
    latent = torch.randn(6, generator=own.torch("first_latents", restart=sample)).requires_grad_()
    stream = own.torch("view_draws", restart=sample)
    optimizer = torch.optim.Adam([latent], lr=config.lr)
    for _ in range(iterations):
        draws = torch.rand(config.views_each, DRAWS, generator=stream)
        image = generator(latent[None], torch.tensor([label]))
        seen = views(image.expand(config.views_each, -1, -1, -1), draws, config.views)
        logits = module(PROBLEM.image.normalise(seen))
        others = torch.cat([logits[:, :label], logits[:, label + 1 :]], 1)
        loss = (others.max(1)[0] - logits[:, label]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return generator(latent[None], torch.tensor([label])).detach()[0]


def test_every_start_is_searched_for_itself():
    answers = solve()
    for label, answer in zip((0, 4), answers, strict=True):
        for sample in range(3):
            assert torch.allclose(answer.images[sample], searched(label, sample, 4), atol=1e-3)


def test_a_start_depends_neither_on_other_labels_nor_on_other_starts():
    """But for rounding, and Adam's epsilon in the means over all of them."""
    several = solve()
    alone, reversed_ = solve(targets=(4,)), solve(targets=(4, 0))
    (fewer,) = solve(QUICK.model_copy(update={"samples": 2}), targets=(4,))
    for other in (alone[0], reversed_[0]):
        assert torch.allclose(several[1].images, other.images, atol=1e-3)
    assert torch.allclose(several[1].images[:2], fewer.images, atol=1e-3)
    assert not torch.allclose(several[1].images[0], several[1].images[1], atol=1e-2)


def test_the_margin_falls():
    config = QUICK.model_copy(update={"iterations": 40, "views": ViewsConfig(rotation=0, crop=1)})
    start, end = (solve(config, max_evaluations=n) for n in (0, 80))
    assert all(b.objective["margin"] < a.objective["margin"] for a, b in zip(start, end, strict=True))


def test_every_view_is_an_evaluation():
    answer = solve(QUICK.model_copy(update={"views_each": 3}), max_evaluations=8)[0]
    assert (answer.lane_iterations, answer.gradient_evaluations) == (2, 6)
    assert PLGMI.evaluations(QUICK) == 8


def test_terms_of_the_margin_and_the_diversity_are_reported_apart():
    plain = solve()
    weighted = solve(QUICK.model_copy(update={"diversity": PlgmiDiversityConfig(weight=0.5)}))
    assert all(set(answer.objective) == {"margin", "total"} for answer in plain)
    for answer in weighted:
        found = answer.objective
        assert found["total"] == pytest.approx(found["margin"] + 0.5 * found["diversity"], rel=1e-5)


def test_snapshots_end_with_what_is_handed_over():
    env = PROBLEM.env()
    answers = solve(env=env)
    assert [snapshot.iteration for snapshot in env.snapshots["t/4"]] == [0, 1, 2, 3, 4]
    assert torch.equal(env.snapshots["t/4"][-1].images, answers[1].images)


def test_a_term_given_in_part_stays_off():
    for given in ({}, {"measure": "coco"}, {"split": "per_label"}):
        term = PlgmiConfig(diversity=given).diversity
        assert (term.weight, term.resolved()) == (0, PlgmiDiversityConfig(**given).resolved())
    assert PlgmiConfig(diversity={"weight": 2}).diversity.split == "halves"
