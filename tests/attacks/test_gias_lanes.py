"""GIAS on lanes of one batch answers as the plain loop does."""

from functools import partial

import pytest
import torch

from attacks.cards_generative import PRIOR, GiasConfig
from attacks.engine.table import Choice, EngineTable, using
from attacks.gias import Gias
from defenses.catalog import GaussianConfig, PruningConfig
from defenses.gaussian import Gaussian
from defenses.pruning import Pruning
from fl.generators.config import GeneratorConfig
from fl.specs import Task
from harness.testing import SmallProblem
from harness.testing.small_generators import (
    generator_artifact,
    small_generator,
    solve_through_generator,
)

QUICK = GiasConfig(
    prior=GeneratorConfig(latent=6, width=2),
    restarts=2,
    latent_iterations=6,
    parameter_iterations=5,
    latent_lr=0.1,
)
solve = partial(solve_through_generator, Gias)


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
