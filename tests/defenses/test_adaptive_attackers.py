"""What adaptive attackers make of the defenses: at the truth their guess is the observation."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from attacks.catalog import DlgConfig, InvertingGradientsConfig
from attacks.inverting_gradients import InvertingGradients
from attacks.problem import Problem
from defenses import DEFENSES
from defenses.catalog import is_mirrored
from fl.seeds import Streams
from fl.specs import Plugin
from harness.testing import SmallProblem
from harness.testing.small_setting import small_setting

PRUNE = {"name": "pruning", "config": {"ratio": 0.5}}
AS_RELEASED = {"name": "pruning", "config": {"variant": "as_released"}}
ROUND = {"name": "quantization", "config": {"bits": 3}}
DETERMINISTIC = [
    ("clipping", {"bound": 0.1}),
    ("clipping", {"bound": 0.1, "scope": "per_tensor"}),
    ("pruning", {"ratio": 0.5}),
    ("pruning", {"ratio": 0.5, "scope": "global"}),
    ("pruning", {"variant": "as_released"}),
    ("quantization", {"bits": 3}),
    ("quantization", {"bits": 3, "scope": "global"}),
    ("fixed_step", {}),
    ("sign", {}),
    ("sign", {"magnitude": "mean"}),
    ("soteria", {"variant": "ggl"}),
    ("soteria", {"variant": "original"}),
    ("chain", {"links": [{"name": "soteria", "config": {"variant": "ggl"}}, ROUND]}),
    ("chain", {"links": [PRUNE, ROUND]}),
    ("chain", {"links": [AS_RELEASED, {"name": "fixed_step"}]}),
    ("label_smoothing", {"epsilon": 0.3}),
    ("chain", {"links": [{"name": "label_smoothing"}, ROUND]}),
]


def build(name, options):
    card = DEFENSES.get(name)
    config = card.config.model_validate(options)
    return DEFENSES.implementation(name)(config), is_mirrored(Plugin(name, card.version, config))


def mismatch(small, **attacker):
    """Return the relative distance between the observation and what the truth would have sent."""
    task = small.attack_task(DlgConfig(), **attacker)
    problem = Problem.of(task, small.env(), unroll=False)
    guessed = problem.gradients(small.image.normalise(small.images), small.labels)
    difference = torch.cat([(guessed[k] - t).flatten() for k, t in problem.observed.items()])
    observed = torch.cat([tensor.flatten() for tensor in problem.observed.values()])
    return float((difference.norm() / observed.norm()).detach())


@pytest.mark.parametrize("kind", ["gradient", "delta"])
@pytest.mark.parametrize(("name", "options"), DETERMINISTIC)
def test_the_truth_explains_the_observation_to_who_knows_the_defense(name, options, kind):
    defense, mirrored = build(name, options)
    small = SmallProblem(kind=kind, defense=defense)
    assert mismatch(small, adaptive=True, mirrored=mirrored) < 1e-3
    assert mismatch(small) > 0.02


@pytest.mark.parametrize("name", ["gaussian", "laplace", "input_noise", "mixup"])
def test_random_defenses_are_known_but_their_draws_are_not(name):
    defense, mirrored = build(name, {})
    small = SmallProblem(n=4, defense=defense)
    assert mirrored == (name in ("gaussian", "laplace"))
    first, again = (mismatch(small, adaptive=True, mirrored=mirrored, seed=1) for _ in range(2))
    assert first == again > 1e-3


@pytest.mark.parametrize(("name", "options"), [d for d in DETERMINISTIC if d[0] != "label_smoothing"][:-1])
def test_mirrors_vectorize_with_derivatives_inside(name, options):
    """Lanes stacked under `vmap` of `grad`, as a vectorized engine calls them, against one at a time."""
    defense, _ = build(name, options)
    problems = [SmallProblem(seed=seed, defense=defense) for seed in (0, 1)]
    params = [defense.estimate(small.observation) for small in problems]
    lanes = [dict(SmallProblem(seed=seed).update.tensors) for seed in (2, 3)]

    def energy(its, gradients):
        return sum(tensor.pow(3).sum() for tensor in defense.mirror(its, gradients).values())

    stack = partial(torch.utils._pytree.tree_map, lambda *leaves: torch.stack(leaves))
    together = torch.func.vmap(torch.func.grad(energy, argnums=1))(stack(*params), stack(*lanes))
    for index, (its, lane) in enumerate(zip(params, lanes, strict=True)):
        leaves = {key: tensor.clone().requires_grad_() for key, tensor in lane.items()}
        alone = torch.autograd.grad(energy(its, leaves), list(leaves.values()))
        for key, derivative in zip(leaves, alone, strict=True):
            torch.testing.assert_close(together[key][index], derivative)


@pytest.mark.parametrize(
    ("name", "options", "applies"),
    [
        ("quantization", {}, False),
        ("quantization", {"rounding": "stochastic"}, True),
        ("fixed_step", {}, False),
        ("sign", {}, False),
        ("pruning", {}, True),
        ("chain", {"links": [{"name": "pruning"}, {"name": "sign"}]}, False),
    ],
)
def test_a_mean_of_rounded_updates_is_not_a_rounded_mean(name, options, applies):
    card, setting = DEFENSES.get(name), small_setting(observes="aggregate")
    config = card.config.model_validate(options)
    assert card.compatible(config, setting) is None
    adaptive = card.compatible(config, replace(setting, attacker="adaptive"))
    assert (adaptive is None) is applies
    assert card.compatible(config, replace(setting, attacker="adaptive", observes="update")) is None


def test_signs_protect_only_from_who_does_not_know_of_them():
    small = SmallProblem(defense=build("sign", {})[0], know_labels=True)
    config = InvertingGradientsConfig(iterations=120, total_variation=0)
    psnr = {}
    for adaptive in (False, True):
        task = small.attack_task(config, adaptive=adaptive)
        (answer,) = InvertingGradients().solve([task], small.env())
        psnr[adaptive] = float(-10 * (answer.images - small.images).square().mean().log10())
    assert psnr[True] > psnr[False] + 5


def test_an_unrolled_attacker_sees_through_rounding():
    """Local steps are simulated with the defense on top; rounding passes derivatives straight through."""
    small = SmallProblem(kind="delta", steps=2, defense=build("quantization", {"bits": 3})[0])
    task = small.attack_task(DlgConfig(), adaptive=True)
    guess = small.images.clone().requires_grad_()
    update = task.simulate(guess, small.labels, small.sent, Streams(0).torch("simulation"))
    clean = replace(small, defense=None).simulator(None)(guess, small.labels, small.sent, None)
    weights = {
        name: torch.sin(torch.arange(t.numel()).float()).view_as(t) for name, t in clean.tensors.items()
    }
    rounded, exact = (
        torch.autograd.grad(sum((u.tensors[k] * w).sum() for k, w in weights.items()), guess)[0]
        for u in (update, clean)
    )
    torch.testing.assert_close(rounded, exact)
