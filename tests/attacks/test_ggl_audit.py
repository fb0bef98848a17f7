"""GGL's directional claims on digits: a generator of its own, a residual network, every defense of the paper.

The scale is that of a laptop; only directions are claimed, over victims together.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import pytest
import torch

import fl.data
from attacks.cards_generative import PRIOR
from attacks.cards_ggl import GglConfig
from attacks.engine.population import Aim, InTurn
from attacks.ggl import Ggl
from attacks.latent.objective import LatentObjective
from attacks.objectives import squared_norm
from attacks.problem import Problem
from defenses import DEFENSES
from fl.cards import DataInfo
from fl.generators.config import GeneratorConfig
from fl.generators.files import frozen
from fl.generators.layout import Layout
from fl.generators.training import Training
from fl.models import MODELS, architecture, initial_state, materialise
from fl.seeds import Streams
from fl.specs import Plugin
from fl.types import Artifact, ImageSpec
from harness.testing import SmallProblem

VICTIMS = 2
SIGMA = 0.1
DEFENSE_OPTIONS = {
    "none": {},
    "gaussian": {"sigma": SIGMA},
    "clipping": {},
    "pruning": {"ratio": 0.9},
    "soteria": {"percent": 80.0, "variant": "ggl"},
}
MIRRORED = ("clipping", "pruning", "soteria")
CONFIG = GglConfig(
    prior=GeneratorConfig(latent=16, width=8), evaluations=320, population=16, restarts=1, kl=2e-3
)


@dataclass(frozen=True)
class Victim(SmallProblem):
    """A digit of 16 px and an untrained ResNet-20."""

    index: int = 0

    @property
    def image(self):
        return ImageSpec(1, 16, (0.5,), (0.5,))

    @cached_property
    def images(self):
        return digits().part("private").images([self.index])

    @cached_property
    def labels(self):
        return digits().part("private").labels[[self.index]]

    @cached_property
    def sent(self):
        card = MODELS.get("resnet20")
        info = DataInfo(self.task, 1, 16, {}, True, "audit", mean=(0.5,), std=(0.5,))
        return initial_state(
            architecture(Plugin(card.name, card.version, card.config()), info),
            streams=Streams(0),
            freeze="none",
            batch_norm="eval",
        )

    def defended(self, name):
        options = dict(DEFENSE_OPTIONS[name])
        if name == "clipping":
            options["bound"] = float(squared_norm(self.update.tensors).sqrt()) / 4
        config = DEFENSES.get(name).config.model_validate(options)
        return replace(self, defense=DEFENSES.implementation(name)(config))


def digits():
    card = fl.data.DATASETS.get("digits")
    return fl.data.load(Plugin(card.name, card.version, card.config.model_validate({"size": 16})))


@pytest.fixture(scope="module")
def generator():
    config = GeneratorConfig(kind="wgan_gp", latent=16, width=8, steps=200, batch_size=64, lr=1e-3)
    layout = Layout("upsampling", 1, 16, config.latent, config.width)
    training = Training(config, layout, digits().part("public").images(), Streams(0))
    for _ in range(config.steps):
        training.step()
    return frozen(training.average)


@dataclass(frozen=True)
class Outcome:
    """What an attack on one victim came to."""

    answer: object
    victim: SmallProblem

    @property
    def error(self):
        return float((self.answer.images - self.victim.images).square().mean())

    @property
    def representation_error(self):
        model = materialise(self.victim.sent)
        found, truth = (
            model.features(self.victim.image.normalise(images))
            for images in (self.answer.images, self.victim.images)
        )
        return float((found - truth).square().mean().detach())


@pytest.fixture(scope="module")
def audit(generator):
    """From defense and attacker to one outcome per victim."""
    weights = {f"weights.{name}": tensor for name, tensor in generator.state_dict().items()}
    artifacts = {PRIOR: Artifact(weights, {"layout": generator.layout.document()})}
    found = {}

    def outcomes(name, *, adaptive):
        if (name, adaptive) not in found:
            victims = [Victim(index=index).defended(name) for index in range(VICTIMS)]
            tasks = [v.attack_task(CONFIG, adaptive=adaptive, artifacts=artifacts) for v in victims]
            answers = Ggl().solve(tasks, victims[0].env())
            found[name, adaptive] = [Outcome(a, v) for a, v in zip(answers, victims, strict=True)]
        return found[name, adaptive]

    return outcomes


def mean(values):
    values = list(values)
    return sum(values) / len(values)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFENSE_OPTIONS)
def test_the_label_is_read_through_every_defense(name):
    for index in range(20):
        victim = Victim(index=index).defended(name)
        problem = Problem.of(victim.attack_task(CONFIG), victim.env(), unroll=False)
        assert problem.inferred_labels(through_noise=True).tolist() == victim.labels.tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "adaptive"), [(name, False) for name in DEFENSE_OPTIONS] + [(name, True) for name in MIRRORED]
)
def test_a_search_ends_below_the_best_of_fifty_random_latents(audit, generator, name, adaptive):
    for outcome in audit(name, adaptive=adaptive):
        victim = outcome.victim
        task = victim.attack_task(CONFIG, adaptive=adaptive)
        problem = Problem.of(task, victim.env(), unroll=False)
        objective = LatentObjective(problem, generator, victim.labels, CONFIG)
        drawn = torch.randn(50, objective.dimension, generator=Streams(9).torch("random_latents"))
        assert outcome.answer.objective["total"] < float(objective.evaluate(drawn).terms["total"].min())


@pytest.mark.slow
@pytest.mark.parametrize("name", MIRRORED)
def test_who_knows_the_defense_matches_far_better(audit, name):
    pairs = zip(audit(name, adaptive=True), audit(name, adaptive=False), strict=True)
    for adaptive, static in pairs:
        assert adaptive.answer.objective["matching"] < 0.4 * static.answer.objective["matching"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clipping", "soteria"])
def test_who_knows_the_defense_comes_nearer_to_the_representation(audit, name):
    errors = {
        knows: mean(outcome.representation_error for outcome in audit(name, adaptive=knows))
        for knows in (True, False)
    }
    assert errors[True] <= errors[False]


@pytest.mark.slow
def test_noise_shifts_the_objective_by_its_energy_per_tensor(audit):
    """At the same image, that the search without a defense ended at: by sigma^2 N / L."""
    for outcome in audit("none", adaptive=False):
        inputs = outcome.victim.image.normalise(outcome.answer.images).unsqueeze(0)
        clean, noisy = (distance_of(outcome.victim.defended(name), inputs) for name in ("none", "gaussian"))
        shapes = [tensor.shape for tensor in outcome.victim.update.tensors.values()]
        expected = SIGMA**2 * sum(shape.numel() for shape in shapes) / len(shapes)
        assert clean == pytest.approx(outcome.answer.objective["matching"], rel=1e-3)
        assert noisy - clean == pytest.approx(expected, rel=0.02)


def distance_of(victim, inputs):
    problem = Problem.of(victim.attack_task(CONFIG), victim.env(), unroll=False)
    weights = dict.fromkeys(problem.observed, 1 / len(problem.observed))
    return float(InTurn(Aim(problem, victim.labels, "l2", weights)).distances(inputs))


@pytest.mark.slow
def test_the_gradient_says_more_than_the_prior(audit, generator):
    outcomes = audit("none", adaptive=False)
    with torch.no_grad():
        drawn = generator(torch.randn(200, 16, generator=Streams(9).torch("random_latents")))
    random = mean(float((drawn - outcome.victim.images).square().mean()) for outcome in outcomes)
    assert mean(outcome.error for outcome in outcomes) < random
